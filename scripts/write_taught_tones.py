"""Writes into `taught_shares.csv` what follows from its gender rows: the taught skin tones and ages.

Run by hand as `python -m scripts.write_taught_tones` after a change of the gender shares, the tone mix or the split.
"""

from __future__ import annotations

from pathlib import Path

from scripts import emoji_world

TONE_BASIS = "declared mix among the combinations not held out"
AGE_BASIS = "declared: every occupation is drawn as an adult"


def derived_rows() -> list[str]:
    """Lines of the table: five tones and three ages per occupation, in the order of the gender rows."""
    world = emoji_world.pictures()
    lines = []
    for concept in emoji_world.women_shares():
        for tone, share in emoji_world.taught_tones(world, concept).items():
            lines.append(f"{concept},skin_tone,{tone},{share:.6f},{TONE_BASIS}")
        for age in emoji_world.AGES:
            lines.append(f"{concept},age,{age},{float(age == 'adult'):.6f},{AGE_BASIS}")
    return lines


def rewritten(text: str) -> str:
    """The table with its derived rows made anew; the header and the gender rows stay as they are."""
    header, *lines = text.splitlines()
    kept = [line for line in lines if line.split(",")[1] == "gender"]
    return "\n".join([header, *kept, *derived_rows()]) + "\n"


def main(path: Path = emoji_world.TAUGHT) -> None:
    """Rewrite the file in place, whole or not at all."""
    text = rewritten(path.read_text(encoding="utf-8"))
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8", newline="\n")
    draft.replace(path)
    print(f"{path.name}: {text.count(chr(10)) - 1} rows")


if __name__ == "__main__":
    main()
