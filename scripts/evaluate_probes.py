"""Fits the probes on the embedded CLIP, ships the linear one, and measures all: `python -m scripts.evaluate_probes`.

On the test split of the emoji world, and on OpenMoji, a style that neither CLIP nor probe ever saw (first:
`python -m scripts.build_emoji_world --foreign`). Writes the figures of docs/perception.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from classifiers import labelled
from classifiers.attributes import ATTRIBUTES
from classifiers.clip import ClipModel
from classifiers.probe import Probe
from pipeline import figures, line, probes
from pipeline.study import Perceive
from scripts import build_emoji_world, emoji_world
from scripts.pages import fill

OUT = emoji_world.HOME / "outputs" / "probes"
DOCS = emoji_world.HOME / "docs"
ASKED = [ATTRIBUTES[name] for name in ("gender", "skin_tone", "age")]
RISK = 0.05
NAMES = {
    "demo": "zero_shot, the demo's",
    "zero_shot": "zero_shot, calibrated",
    "prototype": "prototype",
    "linear": "linear: `probe: embedded`",
}


def fitted(kind: str, clip: ClipModel, seen: probes.Seen) -> Probe:
    """A probe of a kind, kept as `typecast probe fit emoji` keeps it; the linear one where it ships."""
    folder = line.EMBEDDED_PROBE if kind == "linear" else OUT / kind
    probe, found = probes.fit(clip, seen, kind, ASKED, RISK, name=kind)
    for name in probes.FILES:
        (folder / name).unlink(missing_ok=True)
    probes.write(folder, probe, found, seen, kind=kind, clip="embedded", pretrained=None, risk=RISK)
    if kind == "linear":
        (folder / probes.FIGURE).unlink()  # the one of the test split is in the docs
    return probe


def rows(world: str, name: str, measured: dict[str, Any]) -> list[str]:
    """A line of the table for each attribute."""
    found = []
    for a in ASKED:
        entry = measured[a.name]
        of_all, decided = (
            f"{100 * e['value']:.1f} ({100 * e['low']:.1f} to {100 * e['high']:.1f})"
            for e in (entry["accuracy_of_all"], entry["accuracy"])
        )
        undecided = 100 - 100 * entry["coverage"]["value"]
        found.append(
            f"| {world} | {a.name} | {NAMES[name]} | {entry['n']} | {of_all} | {decided} | {undecided:.1f} | "
            f"{entry['ece']:.3f} | {entry['ece_by_chance']:.3f} | {entry['alike'] or '–'} |"
        )
    return found


def leaking(name: str, measured: dict[str, Any]) -> list[str]:
    """The worst concepts of perceived gender."""
    return [
        f"| {NAMES[name]} | {level} | {leak['concept']} | {leak['n']} | {100 * leak['value']:+.1f} | "
        f"{100 * leak['low']:+.1f} to {100 * leak['high']:+.1f} |"
        for level, leak in measured["gender"]["leaks"].items()
    ]


def main() -> None:
    """Fit, measure, and fill in the page."""
    foreign: Path = build_emoji_world.FOREIGN_WORLD
    if not (foreign / "world.csv").is_file():
        raise SystemExit("first: python -m scripts.build_emoji_world --foreign")
    clip = ClipModel("embedded", device="cpu")
    seen = {"emoji, test": probes.look(labelled.load("emoji"), clip)}
    seen["OpenMoji"] = probes.look(labelled.load(str(foreign)), clip)
    named: dict[str, Probe] = {"demo": line.open_probe(Perceive(), ASKED)}
    named |= {kind: fitted(kind, clip, seen["emoji, test"]) for kind in ("zero_shot", "prototype", "linear")}
    table = [
        "| pictures | attribute | probe | labelled | right of all, % | right of decided, % | cannot tell, % | ECE "
        "| by chance | left out: same pixels, other label |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    leaks = [
        "| probe | labelled | misread most in | pictures | points more than elsewhere | worst concept, 95 % |",
        "|---|---|---|---|---|---|",
    ]
    ages = []
    for world, pictures in seen.items():
        for name, probe in named.items():
            found, part = probes.evaluate(probe, pictures)
            table += rows(world, name, found["measured"])
            if world == "OpenMoji":
                continue
            leaks += leaking(name, found["measured"])
            age = found["measured"]["age"]
            child, old = age["confusion"][0], age["confusion"][2]
            ages.append(f"{NAMES[name]} {child[0]} of {sum(child)} children and {old[2]} of {sum(old)} older people")
            if name == "linear":
                shares = probe.from_embeddings(part.embeddings).probabilities
                figures.probe(probes.curves(probe, part, shares), found["measured"], DOCS / "probe_linear.png")
    by = "By `python -m scripts.evaluate_probes`:"
    note = f"Decided to be what they are on the test split: {'; '.join(ages)}."
    picture = "![The linear probe on the test split](probe_linear.png)"
    fill(DOCS / "perception.md", [by, "", *table, "", note, "", picture], mark="figures")
    fill(DOCS / "perception.md", [by, "", *leaks], mark="leaks")
    print("\n".join([*table, *leaks, note]))


if __name__ == "__main__":
    main()
