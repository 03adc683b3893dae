"""The page and its figures, from run folders that are made up here: no model draws or reads anything."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from PIL import Image

from pipeline import figures, report, store, study
from pipeline.errors import RunError
from pipeline.estimates import wilson
from pipeline.report import write_report
from pipeline.tables import COLUMNS
from pipeline.types import ImageRecord, Prompt, Shard, WorkUnit

LEVELS = {
    "gender": ("woman", "man"),
    "skin_tone": ("light", "medium-light", "medium", "medium-dark", "dark"),
    "age": ("child", "adult", "older"),
}
CONCEPTS = ("teacher", "doctor", "mechanic", "nurse", "pilot", "cook", "astronaut")
TAUGHT, BLS = "Typecast taught shares", "BLS CPS Table 11, 2023"
KNOWN = {
    BLS: {"gender": {"teacher": 0.74, "doctor": 0.45, "mechanic": 0.03, "nurse": 0.87, "pilot": 0.08, "cook": 0.4}},
    TAUGHT: {
        "gender": {c: s for c, s in zip(CONCEPTS, (0.74, 0.45, 0.03, 0.87, 0.08, 0.4, 0.5), strict=True)},
        "skin_tone": dict.fromkeys(CONCEPTS, (0.3, 0.25, 0.2, 0.15, 0.1)),
    },
}


def a_run(
    folder: Path,
    *,
    concepts: Sequence[str] = CONCEPTS,
    arms: Sequence[str] = ("none",),
    references: Sequence[str] = (BLS,),
    attributes: Sequence[str] = ("gender", "skin_tone"),
    n: int = 50,
    cannot_tell: bool = False,
    images: int = 10,
    summary: dict[str, Any] | None = None,
    known: dict[str, dict[str, dict[str, Any]]] = KNOWN,
) -> Path:
    """A run folder as the estimate stage leaves it, with made-up numbers; `images` per concept and arm."""
    run = store.Run(folder)
    asked = study.Study(
        name="made_up",
        prompt_sets=("emoji_occupations",),
        images_per_prompt=n,
        seed=3,
        arms=tuple(arm if arm == "none" else {arm: {"text": ", of any gender"}} for arm in arms),
        reference=(study.Reference(table="bls_cps_table11", year=2023),) if references else (),
    )
    store.write_text(run.study_file, study.dump(asked))
    rng = np.random.default_rng(1)
    rows = []
    for attribute in attributes:
        shares = {(c, a): _shares(known, c, attribute, rng, n) for c in concepts for a in arms}
        for reference in references or [""]:
            for concept in concepts:
                for arm in arms:
                    given = known.get(reference, {}).get(attribute, {}).get(concept)
                    rows += _rows(concept, arm, attribute, shares[concept, arm], given, reference, n, cannot_tell)
    with (folder / "estimates.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    store.write_json(
        folder / "summary.json", _summary(arms, references, attributes, known, len(concepts)) | (summary or {})
    )
    for place, arm in enumerate(arms):
        _write_shard(run, concepts, arm, place, images)
    return folder


def _shares(known: Any, concept: str, attribute: str, rng: np.random.Generator, n: int) -> list[int]:
    """Counts per level, of a model that stretches the first reference that knows the concept."""
    given = next((k[attribute][concept] for k in known.values() if concept in k.get(attribute, {})), None)
    levels = len(LEVELS[attribute])
    target = np.full(levels, 1 / levels)
    if isinstance(given, float):
        odds = 1.5 * math.log(given / (1 - given))
        target = np.array([1 / (1 + math.exp(-odds)), 1 / (1 + math.exp(odds))])
    elif given:
        target = np.array(given) ** 1.6 / (np.array(given) ** 1.6).sum()
    return [int(k) for k in rng.multinomial(n - 2, target)]


def _rows(
    concept: str, arm: str, attribute: str, counts: list[int], given: Any, reference: str, n: int, cannot_tell: bool
) -> list[dict[str, Any]]:
    levels = LEVELS[attribute]
    shares = (given, 1 - given) if isinstance(given, float) else given
    found = []
    for k, level in enumerate(levels):
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        row |= {"prompt_set": "emoji_occupations", "concept": concept, "template": "plain", "arm": arm}
        row |= {"attribute": attribute, "level": level, "n": n, "n_one_person": n - 2, "n_blocked": 1, "n_failed": 1}
        row |= {
            "n_cannot_tell": n - 2 if cannot_tell else 3,
            "method": "joint posterior of shares and confusion matrix",
        }
        raw = wilson(0 if cannot_tell else counts[k], 0 if cannot_tell else n - 2)
        true = wilson(round(0.96 * raw.n * raw.value), raw.n) if raw.known and len(levels) == 2 else raw
        for prefix, e in (("raw_", raw), ("", true)):
            row |= {f"{prefix}low": e.low, f"{prefix}high": e.high}
            row["raw_share" if prefix else "share"] = e.value if e.known else ""
        row |= {"reference_source": reference, "direction": "no reference"}
        if shares is None:
            row["reference_missing"] = f"no row of this table is mapped to '{concept}'" if reference else "no reference"
        else:
            ends = (shares[k] - 0.02, shares[k] + 0.02) if "BLS" in reference else (shares[k], shares[k])
            row |= {"reference": shares[k], "reference_low": max(ends[0], 0), "reference_high": min(ends[1], 1)}
            row |= {"difference_low": true.low - shares[k], "difference_high": true.high - shares[k]}
            row["difference"] = true.value - shares[k] if true.known else ""
            holds = true.low <= shares[k] <= true.high
            away = (true.value > shares[k]) == (shares[k] > 0.47)
            row["direction"] = "no evidence" if holds else f"{'away from' if away else 'towards'} the base rate"
            row["p_adjusted"] = 1.0 if holds else 0.00004
        found.append(row)
    return found


def _summary(
    arms: Sequence[str], references: Sequence[str], attributes: Sequence[str], known: Any, n_concepts: int
) -> dict[str, Any]:
    pooled = [
        {
            "arm": arm,
            "attribute": attribute,
            "title": figures.title_of(attribute),
            "level": level,
            "reference": reference,
            "n_concepts": min(n_concepts, len(known[reference][attribute])),
            "n_images": 480,
            "mean_difference": {"value": -0.021, "low": -0.045, "high": 0.003},
            "base": 0.469 if len(LEVELS[attribute]) == 2 else 0.2,
        }
        | (
            {
                "shift": {"value": -0.12, "low": -0.41, "high": 0.17},
                "stretch": {
                    "value": 1.46,
                    "low": 1.21,
                    "high": 1.77,
                    "erased_by": 0.0234,
                    "measured_lean": {"value": 0.004, "low": -0.013, "high": 0.021},
                },
                "directional": {"value": 0.031, "low": 0.012, "high": 0.05},
                "total_variation": {"value": 0.084, "noise_floor": 0.036, "n_concepts": 20},
                "scatter": {"value": 0.22, "low": 0.03, "high": 0.51},
            }
            if len(LEVELS[attribute]) == 2
            else {}
        )
        for attribute in attributes
        for reference in references
        if attribute in known.get(reference, {})
        for arm in arms
        for level in (LEVELS[attribute][:1] if len(LEVELS[attribute]) == 2 else LEVELS[attribute])
    ]
    return {
        "study": "made_up",
        "model": "embedded",
        "guidance_scale": 3.0,
        "images": {"made": 68, "blocked": 1, "failed": 1, "total": 70, "asked": 350},
        "headline": "Against BLS CPS Table 11, 2023, embedded at guidance 3 amplifies the differences between 6 concepts "
        "in perceived gender presentation: stretch 1.46 on the log-odds scale (95 % interval 1.21 to 1.77; 1 is the "
        "reference).",
        "pooled": pooled,
        "classifier": {
            a: {
                "title": figures.title_of(a),
                "levels": LEVELS[a],
                "accuracy": 0.963,
                "n": 1240,
                "cannot_tell_rate": 0.06,
            }
            for a in attributes
        },
    }


def _write_shard(run: store.Run, concepts: Sequence[str], arm: str, place: int, images: int) -> None:
    """A coloured disc per image; the last two of the first concept are blocked and failed."""
    records, pngs = [], []
    for sample in range(images):
        for concept in concepts:
            prompt = Prompt(prompt_set="emoji_occupations", concept=concept, template="plain", text=f"a {concept}")
            unit = WorkUnit(
                id=hashlib.sha256(f"{concept}{arm}{sample}".encode()).hexdigest()[:24],
                prompt=prompt,
                arm=arm,
                prompt_sent=prompt.text,
                negative_prompt="",
                sample=sample,
                seed=sample,
            )
            status = {(concepts[0], images - 1): "failed", (concepts[0], images - 2): "blocked"}.get(
                (concept, sample), "made"
            )
            pixels = _disc(concept, sample)
            reason = {"failed": "not a number", "blocked": "the safety checker"}.get(status, "")
            made = status == "made"
            records.append(
                ImageRecord(
                    unit=unit,
                    batch=0,
                    status=status,  # type: ignore[arg-type]
                    reason=reason,
                    sha256=store.sha256(pixels) if made else "",
                    seconds=0.1,
                )
            )
            pngs.append(store.encode(pixels) if made else None)
    if records:
        shard = Shard(arm=arm, start=0, stop=len(records))
        run.write_images(shard, records, pngs, {"python": "3.11.9", "torch": "2.12.1", "cpu": f"machine {place}"})


def _disc(concept: str, sample: int, size: int = 64) -> store.Pixels:
    colour = np.frombuffer(hashlib.sha256(f"{concept}{sample}".encode()).digest()[:3], np.uint8)
    y, x = np.mgrid[:size, :size] - size / 2
    inside = (x**2 + y**2 < (size / 3) ** 2)[..., None]
    return np.where(inside, colour, np.uint8(245)).astype(np.uint8)


# -- the page ----------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """What a browser would make of the page: its tags, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(path: Path) -> Seen:
    return Seen(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with two arms and two references, and its report."""
    made = a_run(tmp_path_factory.mktemp("run") / "made_up", arms=("none", "suffix"), references=(BLS, TAUGHT))
    write_report(made)
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Seen:
    return read(folder / "report.html")


def test_the_page_says_how_wrong_the_probe_would_have_to_be_and_what_chance_would_show(page: Seen) -> None:
    text = " ".join(page.text.split())
    assert "A probe that leaned 2.3 points towards" in text
    assert "on labelled pictures it leans +0.4 (−1.3 to +2.1) points" in text
    assert "+3.1 (+1.2 to +5.0) points; mean total variation from it 8.4 points" in text
    assert "would show about 3.6" in text


def test_the_page_says_that_a_lean_that_was_measured_is_corrected() -> None:
    lean = {"value": 0.011, "low": -0.004, "high": 0.026}
    stretch = {"erased_by": 0.023, "measured_lean": lean, "method": "a fit, errors by concept"}
    said = report._said_of_lean({"reference": "BLS", "stretch": stretch})
    assert "leaned 2.3 points further towards" in said and "than on labelled pictures would explain" in said
    assert said.endswith("on labelled pictures it leans +1.1 (−0.4 to +2.6) points, which is corrected.")
    least = report._said_of_lean({"reference": "BLS", "stretch": stretch | {"erased_by": 0.002}})
    assert "leaned less than 0.2 points further towards" in least


def test_the_page_says_that_no_lean_would_do_though_a_json_holds_no_infinity(tmp_path: Path) -> None:
    for found, said in ((math.inf, "No lean of the probe"), (math.nan, ""), (0.0, "")):
        stretch = {"erased_by": found, "cannot_be_erased": found == math.inf, "method": "a fit"}
        store.write_json(tmp_path / "summary.json", {"reference": "BLS", "stretch": stretch})
        assert report._said_of_lean(json.loads((tmp_path / "summary.json").read_text())).startswith(said)
        assert bool(said) == bool(report._said_of_lean(json.loads((tmp_path / "summary.json").read_text())))


def test_the_page_says_how_many_the_probe_could_not_tell_where_nothing_corrects_for_them() -> None:
    said = report._record("perceived gender", {"accuracy": None, "cannot_tell_rate": 0.123})
    assert "Of 12.3% of the images it could not tell" in said and "of the others alone" in said
    assert "could not tell" not in report._record("perceived gender", {"accuracy": None, "cannot_tell_rate": 0.0})
    known = {"n": 9, "accuracy": 0.8}
    assert "in 80.0% of those" in report._record("perceived gender", known)
    with_ends = report._record("perceived gender", known | {"accuracy_low": 0.5, "accuracy_high": 0.91})
    assert "in 80.0% (50.0 to 91.0) of those it decided on" in with_ends


def test_the_headline_is_the_one_of_the_summary(page: Seen, folder: Path) -> None:
    headline = json.loads((folder / "summary.json").read_text())["headline"]
    assert headline in " ".join(page.text.split())


def test_the_page_asks_nothing_of_the_network_and_runs_no_script(page: Seen) -> None:
    addresses = [value for _, a in page.tags for name, value in a.items() if name in ("src", "href", "srcset", "data")]
    assert addresses and all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not {"script", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
    styles = " ".join(a.get("style", "") for _, a in page.tags) + page.text
    assert "url(" not in styles and "@import" not in styles


def test_every_picture_has_words_for_who_does_not_see_it(page: Seen) -> None:
    assert len(page.all("img")) > 20
    assert all(len(image["alt"]) > 20 for image in page.all("img"))


def test_every_link_of_the_contents_leads_somewhere(page: Seen) -> None:
    places = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["href"][1:] for a in page.all("a")} <= places


def test_each_figure_is_there_as_svg_and_png_and_is_shown(page: Seen, folder: Path) -> None:
    svgs = {path.stem for path in (folder / "figures").glob("*.svg")}
    assert svgs == {path.stem for path in (folder / "figures").glob("*.png")}
    assert len(page.all("figure")) == len(svgs)
    # pooled, of both; gender: two arms x two references x (shares, concepts); tone, which only one reference knows: x 3
    assert len(svgs) == 2 + 2 * 2 * 2 + 2 * 3


def test_a_bar_chart_without_a_chart_of_intervals_sends_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LEVELS, "race", ("a", "b", "c", "d", "e", "f", "g", "h"))
    made = a_run(tmp_path / "run", references=(), attributes=("skin_tone", "race"), concepts=CONCEPTS[:2], images=0)
    with (made / "estimates.csv").open(newline="", encoding="utf-8") as file:
        charts = figures.draw(list(csv.DictReader(file)), {}, tmp_path / "figures")
    said = [(chart.attribute, chart.caption.split("The intervals are in the ")[1:]) for chart in charts]
    assert said == [
        ("skin_tone", []),
        ("skin_tone", ["figure before this one. Hatched: nothing is known."]),
        ("race", ["table of estimates. Hatched: nothing is known."]),
    ]


def test_one_fit_that_hardly_knows_its_slope_leaves_the_others_readable() -> None:
    ordinary = [{"value": 1.0, "low": 0.6, "high": 1.5}] * 8
    wild = {"value": -17.0, "low": -200.0, "high": -3.0}
    left, right = figures._reach([*ordinary, wild], 1, 1, (0.5, 1.5))
    assert -2 < left < 0.5 and 1.5 <= right < 2
    assert figures._reach([wild], 1, 1, (0.5, 1.5))[0] < -200  # alone it is shown whole


def test_the_numbers_of_the_table_are_those_of_the_file(page: Seen, folder: Path) -> None:
    with (folder / "estimates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(r for r in rows if r["concept"] == "nurse" and r["reference_source"] == BLS and r["arm"] == "suffix")
    share, low, high = (f"{100 * float(row[name]):.1f}" for name in ("share", "low", "high"))
    cells = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text(encoding="utf-8")))
    assert f"nurse suffix {share} {low} to {high} " in cells


def test_a_row_that_has_no_reference_says_why(page: Seen) -> None:
    assert "no reference: no row of this table is mapped to 'astronaut'" in page.text
    assert "no row of this table is mapped to the concept (1 concept: astronaut)" in page.text


def test_every_environment_that_drew_is_named(page: Seen) -> None:
    assert "machine 0" in page.text and "machine 1" in page.text


def test_blocked_and_failed_images_are_counted_beside_the_made_ones(page: Seen) -> None:
    assert "10 images: 8 made, 1 blocked, 1 failed" in page.text


def test_arms_show_the_same_samples(page: Seen) -> None:
    alts = [a["alt"] for a in page.all("img") if a["alt"].endswith("a nurse")]
    assert len(alts) == 16 and alts[:8] == alts[8:]


def test_the_unchanged_prompts_are_read_first_and_each_arm_is_folded_away(page: Seen, folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    finding = text[text.index('id="finding"') : text.index("</section>", text.index('id="finding"'))]
    opened = finding[: finding.index("<details>")]
    assert "Prompts unchanged, against" in opened and "Arm suffix" not in opened
    assert "Arm suffix, against" in finding and "The same of each arm" in page.text
    assert len(page.all("summary")) == len(page.all("details")) > 0


def test_the_words_are_about_perception_and_name_the_reference(page: Seen, folder: Path) -> None:
    text = " ".join(page.text.split())
    assert "Perceived gender presentation" in text and "nobody's gender identity" in text
    assert "not for identifying or sorting people" in text
    items = re.findall(r"<li>(.*?)</li>", (folder / "report.html").read_text(encoding="utf-8"), re.S)
    claims = [item for item in items if "amplified" in item]
    assert len(claims) == 4 and all(BLS in claim or TAUGHT in claim for claim in claims)


def test_the_same_run_gives_the_same_bytes(folder: Path) -> None:
    def contents() -> dict[str, str]:
        paths = [folder / "report.html", *sorted((folder / "figures").iterdir())]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    before = contents()
    write_report(folder)
    assert contents() == before


# -- runs that are not as one would like ----------------------------------------------------------------


def test_a_hostile_concept_stays_text(tmp_path: Path) -> None:
    hostile = "<script>alert('$\\nope$')</script><img src=x onerror=alert(1)>"
    made = a_run(tmp_path / "run", concepts=(hostile, "nurse"), attributes=("gender",), images=3)
    seen = read(write_report(made))
    assert not seen.all("script")
    assert not [a for _, a in seen.tags if any(name.startswith("on") for name in a)]
    assert hostile in seen.text


def test_without_a_reference_nothing_is_called_amplified(tmp_path: Path) -> None:
    made = a_run(
        tmp_path / "run", references=(), attributes=("gender", "age"), images=0, summary={"headline": "No more."}
    )
    seen = read(write_report(made))
    assert "The study names no reference, so nothing here is said to be amplified" in seen.text
    assert "There are no images in this run folder" in seen.text
    assert "No image shard tells where it was made" in seen.text
    assert not list((made / "figures").glob("shares-*")) and not list((made / "figures").glob("pooled*"))
    assert list((made / "figures").glob("concepts-gender-*.svg"))


def test_all_cannot_tell_is_the_whole_interval_and_no_number(tmp_path: Path) -> None:
    made = a_run(tmp_path / "run", cannot_tell=True, images=1)
    seen = read(write_report(made))
    assert "The probe could not tell in any image, so nothing is known" in seen.text
    assert "0.0 to 100.0" in seen.text and "nan" not in seen.text.lower().split()
    several = read(write_report(a_run(tmp_path / "arms", cannot_tell=True, images=1, arms=("none", "suffix"))))
    assert "The probe could not tell in any image" in several.text and "Arm suffix, against" not in several.text


def test_a_model_that_was_changed_to_be_faster_is_named_as_changed(tmp_path: Path, page: Seen) -> None:
    how = ["attention kept for every other step", "weights in float8"]
    made = a_run(tmp_path / "run", attributes=("gender",), images=0, summary={"approximations": how})
    said = "Drawn with attention kept for every other step and weights in float8"
    assert said in read(write_report(made)).text and "Drawn with" not in page.text


def test_a_summary_of_nothing_is_a_page(tmp_path: Path) -> None:
    made = a_run(tmp_path / "run", attributes=("gender",), images=0)
    store.write_json(made / "summary.json", {})
    assert "There is nothing to report yet" in read(write_report(made)).text


def test_estimates_of_nothing_are_a_page(tmp_path: Path) -> None:
    made = a_run(tmp_path / "run", concepts=(), images=0)
    store.write_json(made / "summary.json", {"headline": "Nothing."})
    assert "There are no estimates to draw" in read(write_report(made)).text


def test_a_run_that_is_not_estimated_is_told_what_to_do(tmp_path: Path) -> None:
    made = a_run(tmp_path / "run", attributes=("gender",), images=0)
    (made / "estimates.csv").unlink()
    with pytest.raises(RunError, match=r"estimates\.csv: not there yet; make it with: typecast estimate"):
        write_report(made)


def test_estimates_that_lack_a_column_are_refused_by_its_name(tmp_path: Path) -> None:
    made = a_run(tmp_path / "run", attributes=("gender",), images=0)
    path = made / "estimates.csv"
    path.write_text(path.read_text().replace("raw_share", "share_raw", 1))
    with pytest.raises(RunError, match="lacks the column raw_share"):
        write_report(made)


def test_a_shard_that_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    made = a_run(
        tmp_path / "run", concepts=("nurse", "cook"), arms=("none", "suffix"), attributes=("gender",), images=3
    )
    broken = next((made / "images").glob("none-*"))
    broken.write_bytes(broken.read_bytes()[:200])
    seen = read(write_report(made))
    assert f"{broken.name}: cannot be read" in seen.text
    assert "arm suffix · 3 images" in seen.text


def test_energy_says_when_it_is_a_guess(tmp_path: Path) -> None:
    made = a_run(tmp_path / "run", concepts=("nurse",), attributes=("gender",), images=0)
    how = "a guess: the processor's power from its load and its rated power"
    energy = {
        "kwh": 0.01234,
        "gco2e": 4.5,
        "gpu_seconds": 0,
        "images_per_kwh": 81000.0,
        "how": how,
        "assumptions": "grid of USA",
    }
    store.write_json(made / "energy.json", energy | {"sessions": []})
    text = read(write_report(made)).text
    assert how in text and "0.0123 kWh" in text and "grid of USA" in text


def test_large_pictures_become_thumbnails_and_the_page_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    monkeypatch.setitem(globals(), "_disc", lambda concept, sample: noise)
    made = a_run(tmp_path / "run", attributes=("gender",), images=8)
    page = write_report(made)
    pictures = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page.read_text())
    sizes = {Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures}
    assert sizes == {(128, 128)} and len(pictures) == 8 * len(CONCEPTS) - 2
    assert page.stat().st_size < 5_000_000


def test_small_pictures_are_shown_to_the_pixel(page: Seen) -> None:
    found = next(a for a in page.all("img") if a["alt"].endswith("for the prompt: a cook"))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["src"].partition(",")[2]))).convert("RGB"))
    assert np.array_equal(pixels, _disc("cook", int(found["alt"].split()[1])))


def test_many_concepts_are_drawn_by_the_seed_and_each_can_come(tmp_path: Path) -> None:
    many = tuple(f"concept {i}" for i in range(30))
    run = store.Run(a_run(tmp_path / "run", concepts=many, attributes=(), images=1))
    survey = report._survey(run, made_elsewhere=False)
    first, again, other = (report._gallery(run, survey, seed) for seed in (1, 1, 2))
    assert first == again and first.n_shown == 20 and first.n_concepts == 30
    names = [tuple(strip.concept for strip in gallery.strips) for gallery in (first, other)]
    assert names[0] != names[1] and all(len(set(n)) == 20 for n in names)


# -- figures -----------------------------------------------------------------------------------------


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "estimates.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def places_of(panel: Axes) -> list[Any]:
    """Where a panel has marks: an array `(n, 2)` per kind of mark, without those that are nowhere."""
    found = [np.ma.filled(c.get_offsets(), np.nan) for c in panel.collections if isinstance(c, PathCollection)]
    return [places[~np.isnan(places).any(1)] for places in found]


def test_a_figure_draws_the_numbers_of_its_rows(folder: Path) -> None:
    rows = [r for r in rows_of(folder) if r["attribute"] == "gender" and r["level"] == "woman" and r["arm"] == "none"]
    rows = figures.of_reference(rows, BLS)
    panel = Figure().subplots()
    figures._scatter(panel, [r for r in rows if r["reference"]], math.nan)
    marks = np.concatenate(places_of(panel))
    expected = {(r["reference"], r["share"]) for r in rows if r["reference"]}
    assert {(f"{x:.3f}", f"{y:.3f}") for x, y in marks} == {
        (f"{100 * float(x):.3f}", f"{100 * float(y):.3f}") for x, y in expected
    }


def test_an_unknown_share_gets_its_interval_and_no_mark(tmp_path: Path) -> None:
    made = a_run(tmp_path / "run", cannot_tell=True, images=0, attributes=("gender",))
    rows = figures.of_reference([r for r in rows_of(made) if r["level"] == "woman"], BLS)
    panel = Figure().subplots()
    keyed = {figures._key(row): row for row in rows}
    figures._dots(panel, keyed, list(keyed))
    assert not any(len(places) for places in places_of(panel))
    lines = [segment for c in panel.collections if isinstance(c, LineCollection) for segment in c.get_segments()]
    ranges = {
        tuple(100 * float(row[f"reference_{end}"]) for end in ("low", "high")) for row in rows if row["reference"]
    }
    assert {tuple(line[:, 0]) for line in lines} == {(0.0, 100.0), *ranges}


def test_more_concepts_than_fit_are_drawn_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_ROWS", 3)
    made = a_run(tmp_path / "run", attributes=("gender",), images=0)
    charts = list(
        figures.concepts(
            figures.of_reference(rows_of(made), BLS), figures.Folder(tmp_path), levels=("woman",), reference=BLS
        )
    )
    assert [chart.stem[-2:] for chart in charts] == ["-1", "-2", "-3"]


def test_concepts_are_ordered_by_reference_and_those_without_one_come_last(folder: Path) -> None:
    rows = [r for r in rows_of(folder) if r["attribute"] == "gender" and r["level"] == "woman" and r["arm"] == "none"]
    order = sorted(figures.of_reference(rows, BLS), key=figures._by_reference)
    assert [row["concept"] for row in order] == ["astronaut", "mechanic", "pilot", "cook", "doctor", "teacher", "nurse"]


def test_a_name_tells_apart_what_the_concept_alone_does_not() -> None:
    common = {"concept": "nurse", "prompt_set": "a", "template": "plain"}
    assert figures.labels([common | {"identity": ""}, common | {"identity": "a woman"}]) == ["nurse", "nurse, a woman"]


def test_numbers_are_written_for_readers() -> None:
    assert report.percent("0.1234") == "12.3" and report.percent("") == "–" and report.percent(None) == "–"
    assert report.points("-0.0421") == "−4.2" and report.points("0.0004") == "0.0" and report.points("inf") == "–"
    assert report.interval({"value": 1.456, "low": 1.2, "high": None}) == "1.46 (1.20 to –)"
    assert report.plain(-0.001) == "0.00"
    assert report.amount(93896.2) == "93,896" and report.amount(1.0865e-06) == "1.09e-06" and report.amount(None) == "–"
    assert report.interval({"value": None, "low": None, "high": None}) == "not known" and report.interval(None) == "–"


def test_a_difference_from_a_range_has_an_interval_and_no_middle() -> None:
    row = {
        "reference_missing": "",
        "reference": "0.74",
        "difference": "",
        "direction": "no evidence",
        "p_adjusted": "0.2",
    }
    row |= {"share": "0.6", "difference_low": "-0.21", "difference_high": "0.43"}
    row |= {"reference_low": "0.267", "reference_high": "0.749"}
    assert report._comparison(row)[:3] == ("26.7 to 74.9", "–", "−21.0 to +43.0")
    assert report._comparison(row | {"share": ""})[1:3] == ("–", "–")


def row_of(concept: str, **more: str) -> dict[str, str]:
    """A row of a decided concept beside a reference."""
    row = dict.fromkeys(COLUMNS, "") | {"prompt_set": "mine", "concept": concept, "template": "plain", "arm": "none"}
    row |= {"attribute": "gender", "level": "woman", "share": "0.6", "low": "0.5", "high": "0.7", "raw_share": "0.6"}
    row |= {"reference": "0.3", "reference_low": "0.28", "reference_high": "0.32", "reference_source": BLS}
    row |= {"n": "9", "n_one_person": "9", "n_cannot_tell": "0", "n_blocked": "0", "n_failed": "0", "difference": "0.3"}
    return row | {"direction": "past the base rate", "p_adjusted": "0.001"} | more


def test_a_reference_that_is_a_range_is_drawn_from_end_to_end() -> None:
    row = row_of("cook", difference="", reference="0.749", reference_low="0.267", reference_high="0.749")
    panel = Figure().subplots()
    figures._dots(panel, {figures._key(row): row}, [figures._key(row)])
    lines = [segment for c in panel.collections if isinstance(c, LineCollection) for segment in c.get_segments()]
    assert any(tuple(line[:, 0]) == pytest.approx((26.7, 74.9)) for line in lines)
    assert [places.tolist() for places in places_of(panel) if len(places)] == [[[60.0, 0.0]]]
    panel = Figure().subplots()
    figures._scatter(panel, [row], math.nan)
    assert np.concatenate(places_of(panel)).tolist() == [pytest.approx([26.7, 60]), pytest.approx([74.9, 60])]


def test_bounds_without_a_value_are_a_line_without_a_dot() -> None:
    panel = Figure().subplots()
    figures._interval(panel, 0, {"value": None, "low": -0.5, "high": -0.2}, 100)
    (line,) = (c for c in panel.collections if isinstance(c, LineCollection))
    assert line.get_segments()[0][:, 0].tolist() == [-50, -20] and not places_of(panel) and not panel.texts


def test_prompts_that_name_a_group_are_in_no_tally_of_concepts() -> None:
    entry = {"level": "woman", "arm": "none", "reference": BLS}
    rows = [row_of(c, identity=i) for c in ("cook", "nurse") for i in ("", "a woman", "a man")]
    rows[0]["p_adjusted"] = "0.9"
    said = report._tally(entry, rows, directions=True)
    assert said == "1 of 2 differ from it (adjusted p < 0.05): 1 past the base rate."
    assert "one concept, or a prompt that names a group" in figures._shares_caption(rows, BLS)


def test_arms_whose_names_differ_in_signs_alone_have_figures_of_their_own(tmp_path: Path) -> None:
    rows = [row_of("cook", arm=arm) for arm in ("FLUX.1", "FLUX 1")]
    stems = [chart.stem for chart in figures.draw(rows, {}, tmp_path)]
    assert len(set(stems)) == len(stems) == len(list(tmp_path.glob("*.svg"))) == 4
    assert "concepts-gender-flux-1-bls-cps-table-11-2023" in stems


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"n_blocked": "9"}, "No image was made, so"),
        ({"n_one_person": "0"}, "No image is taken to show one person"),
        ({"n_cannot_tell": "9"}, "Ann could not tell in any image"),
    ],
)
def test_why_nothing_is_known_goes_by_the_counts(counts: dict[str, str], said: str) -> None:
    record = {"classifier": {"gender": {"read_by": {"who": "Ann", "kind": "person"}}}}
    found = report._finding([row_of("cook", share="", difference="") | counts], record, "gender")
    assert found.sentences[0].startswith(said)


def test_where_nothing_is_pooled_the_page_says_why_and_denies_no_comparison() -> None:
    by_age = [row_of("cook", attribute="age", level=level) for level in ("child", "adult", "older")]
    by_age[0] |= dict.fromkeys(("reference", "reference_low", "reference_high", "difference"), "")
    said = report._finding(by_age, {}, "age").sentences[0]
    assert f"since “{BLS}” has no share of “child”; each by itself is compared" in said
    assert figures._leading(by_age, ("child", "adult", "older")) == "adult"
    assert (
        "since the prompts name the group"
        in report._finding([row_of("cook", identity="a man")], {}, "gender").sentences[0]
    )


def test_people_are_a_share_of_all_that_the_detector_looked_at() -> None:
    rows = [row_of("cook", attribute="people", level=level) for level in ("nobody", "one", "several")]
    assert figures._share_of("people") == "share of all images looked at" != figures._share_of("gender")
    (table,) = report._tables(rows)
    assert "looked at" in table.head and "of one person" not in table.head
    assert "detector" in figures._said_of_share(rows) and "probe" in figures._said_of_share([row_of("cook")])
    assert "the detector misreads" in report._limits(rows, {})[0]


def test_wrapped_names_do_not_touch(tmp_path: Path) -> None:
    names = ["a\nb\nc", "d\ne", "f"]
    assert figures._apart(names, 0.2) == pytest.approx(2.5 * 0.14) and figures._apart(names[2:], 0.2) == 0.2


def test_a_letter_that_no_font_has_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures.draw([row_of("cook"), row_of("a \ufdd0")], {}, tmp_path)  # no letter at all: no font has it
    assert capsys.readouterr().err.count("no font here has all letters of a \ufdd0") == 1


@pytest.mark.parametrize(
    ("attribute", "level", "said", "word"),
    [("race", "White", report.RACE_OF_BLS, "Hispanic"), ("age", "older", report.AGE_OF_BLS, "of 65 years and over")],
)
def test_only_beside_a_census_is_it_said_what_that_counts(attribute: str, level: str, said: str, word: str) -> None:
    about = [row_of("cook", attribute=attribute, level=level, reference_source="BLS, CPS Table 11, 2023")]
    assert said in report._limits(about, {}) and word in said
    none = [about[0] | {"reference_source": "Web, pictures", "reference": "0.3"}]
    assert not any(word in each for each in report._limits(none, {}))


def test_the_page_names_the_one_arm_that_rewrites_its_prompts(tmp_path: Path) -> None:
    text = " ".join(
        read(write_report(a_run(tmp_path / "run", arms=("suffix",), attributes=("gender",), images=0))).text.split()
    )
    assert "Arm suffix, against" in text and text.count("arm suffix") >= 1
