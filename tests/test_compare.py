"""Several runs beside each other, on runs that are made in the test."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from pipeline import changes, cli, compare, figures, labels, line, store, tables
from pipeline.changes import either_way
from pipeline.compare import pair_counts
from pipeline.errors import InputError, RunError
from pipeline.line import Opened
from pipeline.tables import Reading
from pipeline.types import Attribute, Estimate, Perceived, digest
from tests.conftest import fake_study
from tests.test_cli import typecast

LEVELS = ("woman", "man")
MATRIX = [[180, 10, 10], [20, 170, 10]]


def perceive_anew(opened: Opened, decide: Callable[[int, int], str], matrix: Any = MATRIX) -> None:
    """Other perceptions in place of the fake's: a decision per image from its seed and number, and a known matrix."""
    run, study, planned = opened
    gender = Attribute(name="gender", title="perceived gender presentation", levels=LEVELS, wordings={})
    number = 0
    for shard in planned.shards():
        table = run.read_images(shard, ["unit_id", "seed"]).to_pydict()
        n = len(table["seed"])
        said = [decide(seed, number + i) for i, seed in enumerate(table["seed"])]
        number += n
        seen = Perceived(np.zeros((n, 2), np.float16), {"gender": np.zeros((n, 2), np.float32)}, {"gender": said})
        run.perceptions(study.perceive.name, shard).unlink()
        run.write_perceptions(study.perceive.name, shard, table["unit_id"], seen, [gender])
    described = {
        "name": study.perceive.name,
        "attributes": {"gender": {"title": gender.title, "levels": list(LEVELS)}},
        "confusion": {"gender": matrix},
    }
    store.write_json(run.perceptions(study.perceive.name, "x").with_name("perceiver.json"), described)
    line.estimate(opened)


def chance(seed: int, what: str) -> float:
    return int(digest([seed, what])[:8], 16) / 16**8


def women(share: float) -> Callable[[int, int], str]:
    """So many women, the same seeds first: the pictures of two runs go together."""
    return lambda seed, _: "cannot tell" if chance(seed, "told") < 0.05 else LEVELS[chance(seed, "who") > share]


@pytest.fixture
def runs(drawn: Callable[..., Opened]) -> Callable[..., Opened]:
    """Without a reference, whose fits take most of the time of an estimate."""

    def make(folder: str, share: float, matrix: Any = MATRIX, **changes: Any) -> Opened:
        asked = {"images_per_prompt": 40, "perceive": {"clip": "fake", "attributes": ["gender"]}, "reference": []}
        opened = drawn(folder, **(asked | changes))
        perceive_anew(opened, women(share), matrix)
        return opened

    return make


def guided(scale: float) -> dict[str, Any]:
    return {"height": 16, "width": 16, "threads": 1, "guidance_scale": scale}


def folders(*opened: Opened) -> list[Path]:
    return [o[0].folder for o in opened]


def test_runs_of_one_model_are_compared_on_pairs_and_the_pairs_are_surer(runs: Callable[..., Opened]) -> None:
    one, two = runs("one", 0.3), runs("two", 0.5, draw=guided(5))
    rows, found = compare.compare(folders(one, two))
    assert len(rows) == 20 * 2
    women_rows = [row for row in rows if row["level"] == "woman"]
    assert all("paired" in row["method"] and "unpaired" not in row["method"] for row in rows)
    assert all(row["pairs"] + row["missing_partners"] == 40 for row in rows)
    # In raw shares 0.2; the matrix says that so much of a change is seen.
    truth = 0.2 / (170 / 190 + 180 / 190 - 1)
    assert np.mean([row["change_low"] <= truth <= row["change_high"] for row in women_rows]) >= 0.85
    for row in women_rows:
        wide = math.hypot(row["baseline_high"] - row["baseline_low"], row["high"] - row["low"])
        assert row["change_high"] - row["change_low"] < wide and row["variance_factor"] < 1
    pooled = next(e for e in found["changes"] if e["level"] == "woman")
    assert pooled["paired"] and pooled["change"]["low"] < truth < pooled["change"]["high"]
    assert found["runs"][1]["differs"] == ["draw.guidance_scale = 5.0"]


def test_what_people_labelled_is_in_a_comparison_as_it_is_in_the_estimates(
    runs: Callable[..., Opened], tmp_path: Path
) -> None:
    one, two = runs("one", 0.3), runs("two", 0.5, draw=guided(5))
    plain = compare.compare(folders(one, two))[0]
    run, study, planned = two
    readings = line.read_by(run, study)
    labels.draw(run, planned, study.perceive.name, readings, per_concept=10, seed=0)
    with (labels.folder(run) / "sheet.csv").open(newline="") as file:
        sheet = list(csv.DictReader(file))
    with (tmp_path / "ann.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(sheet[0]))
        writer.writeheader()
        writer.writerows(row | {"gender": "woman"} for row in sheet)  # of half the pictures the probe said "man"
    labels.take(run, planned, readings, [tmp_path / "ann.csv"], now="2026-01-02T03:04:05+00:00")
    line.estimate(two)
    rows, _ = compare.compare(folders(one, two))
    with (run.folder / "estimates.csv").open(newline="") as file:
        estimates = {(row["concept"], row["level"]): float(row["share"]) for row in csv.DictReader(file)}
    told = {(row["concept"], row["level"]): row["share"] for row in rows}
    assert told == pytest.approx(estimates, abs=1e-5)
    assert all("; errors taken to be the same in both runs, errors by concept" in row["method"] for row in rows)
    # With 200 more women of whom about half were read right, sensitivity + specificity - 1 falls from .84 to about .64.
    before, after = (np.mean([r["change_high"] - r["change_low"] for r in some]) for some in (plain, rows))
    assert after > 1.2 * before


def test_the_pairs_are_those_of_a_dictionary_of_seeds(runs: Callable[..., Opened]) -> None:
    one, two = runs("one", 0.3), runs("two", 0.5, draw=guided(5))
    first, other = (compare._member(folder, folder.name) for folder in folders(one, two))
    found = pair_counts(first, other)
    # in the order of the study, for chance is drawn in it: the same runs give the same numbers
    assert [key for key, _ in found] == tables.keys(first.planned)

    def decided(opened: Opened) -> dict[tuple[str, int], str]:
        run, study, planned = opened
        return {
            (concept, seed): said
            for shard in planned.shards()
            for concept, seed, said in zip(
                *(run.read_images(shard, ["concept", "seed"])[c].to_pylist() for c in ("concept", "seed")),
                run.read_perceptions(study.perceive.name, shard)["gender"].to_pylist(),
                strict=True,
            )
        }

    mine, theirs = decided(one), decided(two)
    columns = (*LEVELS, "cannot tell")
    for (key, _), (counts, alone) in found.items():
        own = [(said, theirs[at]) for at, said in mine.items() if at[0] == key[1]]
        assert counts.tolist() == [[own.count((i, j)) for j in columns] for i in columns] and alone == 0


def test_attributes_are_compared_together_as_well_as_apart(drawn: Callable[..., Opened]) -> None:
    opened = [
        drawn("one", images_per_prompt=12, reference=[]),
        drawn("two", images_per_prompt=12, reference=[], draw=guided(5)),
    ]
    for one in opened:
        line.estimate(one)
    members = [compare._member(folder, folder.name) for folder in folders(*opened)]
    found = pair_counts(members[0], members[1])
    names = ("gender", "skin_tone", "gender_x_skin_tone")
    sizes = {name: found[next(key for key, attribute in found if attribute == name), name][0] for name in names}
    assert {name: counts.shape for name, counts in sizes.items()} == dict(
        zip(names, [(3, 3), (6, 6), (11, 11)], strict=True)
    )
    for key in {key for key, _ in found}:
        apart, tones, both = (found[key, name][0] for name in names)
        assert apart.sum() == tones.sum() == both.sum()
        # ten combinations, woman first: whoever is read as two women has both tones told
        assert both[:5, :5].sum() <= apart[0, 0] and both[5:10, 5:10].sum() <= apart[1, 1]
        assert both[:10, :10].sum() <= min(apart[:2, :2].sum(), tones[:5, :5].sum())
    rows, _ = compare.compare(folders(*opened))
    assert len([row for row in rows if row["attribute"] == "gender_x_skin_tone"]) == 20 * 10


def test_the_shares_are_those_of_the_runs_own_estimates(runs: Callable[..., Opened]) -> None:
    one, two = runs("one", 0.3), runs("two", 0.5, draw=guided(5))
    rows, _ = compare.compare(folders(one, two))
    for opened, names in ((one, ("baseline_share", "baseline_low", "baseline_high")), (two, ("share", "low", "high"))):
        with (opened[0].folder / "estimates.csv").open(newline="") as file:
            own = {(r["concept"], r["level"]): r for r in csv.DictReader(file)}
        for row in rows:
            given = own[row["concept"], row["level"]]
            assert [row[n] for n in names] == pytest.approx(
                [float(given[n]) for n in ("share", "low", "high")], abs=1e-5
            )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seed": 7}, "the seed of the study is 0 and 7"),
        ({"draw": {"height": 8, "width": 8, "threads": 1}}, "another size"),
    ],
)
def test_other_noise_is_compared_unpaired_and_it_says_why(runs: Callable[..., Opened], changes: Any, why: str) -> None:
    rows, found = compare.compare(folders(runs("one", 0.3), runs("two", 0.5, **changes)))
    assert all(row["method"].startswith("unpaired; MOVER") and row["pairs"] == 0 for row in rows)
    assert all(why in entry["why_unpaired"] and not entry["paired"] for entry in found["changes"])
    pooled = next(e for e in found["changes"] if e["level"] == "woman")["change"]
    assert pooled["low"] < 0.2 / (170 / 190 + 180 / 190 - 1) < pooled["high"]


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ("retrained since", "the models have other weights"),
        ("", "two does not say which weights drew it, so the two models may differ"),
    ],
)
def test_images_by_other_weights_make_no_pairs(
    runs: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch, weights: str, why: str
) -> None:
    one = runs("one", 0.3)
    monkeypatch.setattr("pipeline.stages._environment", lambda planned: {"weights": weights})
    _, found = compare.compare(folders(one, runs("two", 0.5, draw=guided(5))))
    assert {e["why_unpaired"] for e in found["changes"]} == {why}


def test_images_that_one_run_lacks_are_missing_partners(
    runs: Callable[..., Opened], drawn: Callable[..., Opened]
) -> None:
    one = runs("one", 0.3)
    two = drawn("two", images_per_prompt=30, perceive={"clip": "fake", "attributes": ["gender"]}, draw=guided(5))
    perceive_anew(two, women(0.5))
    rows, _ = compare.compare(folders(one, two))
    assert all(row["pairs"] + row["missing_partners"] == 40 and row["missing_partners"] >= 10 for row in rows)


def test_holm_is_over_the_concepts_of_an_arm_with_one_test_each(runs: Callable[..., Opened]) -> None:
    arms = ["none", {"suffix": {"text": "smiling"}}]
    rows, _ = compare.compare(folders(runs("one", 0.3, arms=arms), runs("two", 0.55, draw=guided(5), arms=arms)))
    for arm in ("none", "suffix"):
        tests = [row["p"] for row in rows if row["level"] == "woman" and row["arm"] == arm]
        adjusted = [row["p_adjusted"] for row in rows if row["level"] == "woman" and row["arm"] == arm]
        assert adjusted == pytest.approx(multipletests(tests, method="holm")[1]) and len(tests) == 20
        assert adjusted == [row["p_adjusted"] for row in rows if row["level"] == "man" and row["arm"] == arm]


def test_without_a_matrix_the_undecided_may_be_any_level(runs: Callable[..., Opened]) -> None:
    rows, _ = compare.compare(folders(runs("one", 0.3, None), runs("two", 0.5, None, draw=guided(5))))
    assert all("undecided counted either way, raw" in row["method"] for row in rows)
    raw = Estimate(0.1, 0.0, 0.2, 8, "")
    pairs = np.array([[3, 1, 1], [2, 2, 0], [0, 1, 0]])
    # Two of ten are half known: one may have left the level, and the other may have left or stayed out.
    low, high = either_way(raw, pairs, 0, "raw")[1:3]
    assert (low, high) == pytest.approx(((0.0 * 8 - 2) / 10, 0.2 * 8 / 10))


@pytest.mark.parametrize(
    "pairs", [[[9, 1, 2], [14, 6, 1], [1, 0, 1]], [[9, 12, 0], [1, 6, 2], [0, 1, 0]], [[9, 3, 2], [6, 6, 2], [1, 1, 1]]]
)
def test_the_p_value_of_pairs_with_undecided_sides_is_the_largest_of_all_that_they_may_be(
    pairs: list[list[int]],
) -> None:
    """By trying every way to decide them, each by McNemar's test of statsmodels."""
    table, largest = np.array(pairs), 0.0
    cells = {(0, 2): [(0, 0), (0, 1)], (1, 2): [(1, 0), (1, 1)], (2, 0): [(0, 0), (1, 0)], (2, 1): [(0, 1), (1, 1)]}
    cells[2, 2] = [(0, 0), (0, 1), (1, 0), (1, 1)]
    undecided = [choices for cell, choices in cells.items() for _ in range(table[cell])]
    for decided in itertools.product(*undecided):
        whole = table[:2, :2].copy()
        np.add.at(whole, tuple(np.array(decided).T), 1)
        largest = max(largest, float(mcnemar(whole, exact=True).pvalue))
    assert changes.p_either_way(table) == pytest.approx(largest)


@pytest.mark.parametrize("on_pairs", [True, False])
def test_without_a_matrix_a_change_holds_whatever_the_undecided_are(on_pairs: bool) -> None:
    """Of each concept and of all together, whyever there is no matrix."""
    why = "raw: no decided labelled picture of woman"
    reading = Reading("gender", "perceived gender presentation", ("woman", "man"), None, uncorrected=why)
    keys = [("set", concept, "plain", "", "none") for concept in ("cook", "nurse", "pilot")]
    table, rng = np.array([[30, 10, 20], [5, 40, 15], [15, 15, 0]]), np.random.default_rng(0)
    sides = [
        changes.Side(
            reading=reading,
            shares={key: tables.uncorrected(counts, reading, rng) for key in keys},
            counts=dict.fromkeys(keys, counts),
        )
        for counts in (table.sum(1), table.sum(0))
    ]
    pairs = dict.fromkeys(keys, (table, 0)) if on_pairs else {}
    most = (5 - 10 + 15 + 15) / 150  # of women more: every man's partner and every woman's is what makes it so
    least = (5 - 10 - 20 - 15) / 150
    for row in changes.rows(*sides, keys, pairs, rng):
        if row["level"] == "woman":
            assert row["change_low"] < least < most < row["change_high"]
    (entry, _) = changes.pooled(*sides, keys, pairs, rng)
    assert entry["change"]["low"] < least < most < entry["change"]["high"]
    assert entry["log_odds_change"]["low"] < 0 < entry["log_odds_change"]["high"]
    assert entry["baseline_share"]["low"] < 60 / 150 < 90 / 150 < entry["baseline_share"]["high"]
    assert not on_pairs or entry["change"]["method"].endswith(f"undecided counted either way, {why}")


def test_runs_that_cannot_be_compared_are_one_message(
    runs: Callable[..., Opened], drawn: Callable[..., Opened]
) -> None:
    one = runs("one", 0.3)
    plain = drawn("plain")
    with pytest.raises(InputError, match="is named twice"):
        compare.compare([one[0].folder, one[0].folder / "."])
    with pytest.raises(InputError, match="at least two"):
        compare.compare(folders(one))
    with pytest.raises(RunError, match=r"no estimates yet; run: typecast estimate"):
        compare.compare(folders(one, plain))
    strict = line.begin(
        fake_study(perceive={"clip": "fake", "attributes": ["gender"], "threshold": 0.9}), one[0].folder.with_name("s")
    )
    line.generate(strict, perceive=True)
    line.estimate(strict)
    with pytest.raises(RunError, match=r"threshold is 0\.6 there and 0\.9 here.*needs one perceiver"):
        compare.compare(folders(one, strict))


def test_the_command_writes_the_table_the_summary_and_the_figure(runs: Callable[..., Opened], tmp_path: Path) -> None:
    known: dict[str, Any] = {"reference": [{"table": "taught_shares"}]}
    one, two = runs("one", 0.3, **known), runs("two", 0.55, draw=guided(5), **known)
    names = [str(f) for f in folders(one, two, runs("three", 0.4, seed=3, **known))]
    done = typecast("compare", *names, "--out", "both", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "three: unpaired, since the seed of the study is 0 and 3" in done.stdout and "guidance_scale" in done.stdout
    with (tmp_path / "both/compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == compare.COLUMNS and len(rows) == 2 * 20 * 2
    found = json.loads((tmp_path / "both/compare.json").read_text())
    assert [run["name"] for run in found["runs"]] == ["one", "two", "three"]
    assert all(run["pooled"] for run in found["runs"])
    assert all("stretch" in entry for run in found["runs"] for entry in run["pooled"])
    assert sorted(p.name for p in (tmp_path / "both/figures").iterdir()) == [
        "compare-gender-none.png",
        "compare-gender-none.svg",
    ]
    again = typecast("compare", names[0], names[0], cwd=tmp_path)
    assert again.returncode == 2 and "is named twice" in again.stderr and "Traceback" not in again.stderr


def test_runs_against_two_years_of_a_reference_stand_beside_each_other(
    runs: Callable[..., Opened], tmp_path: Path
) -> None:
    """One table for several years: the shares are the same, and what they amount to is not."""
    years = [{"reference": [{"table": "bls_cps_table11", "year": year}]} for year in (2019, 2023)]
    both = folders(*(runs(f"y{number}", 0.3, **year) for number, year in enumerate(years)))
    rows, found = compare.compare(both)
    assert max(abs(row["change"]) for row in rows) < 0.01
    assert [run["differs"] for run in found["runs"]] == [[], ["reference = bls_cps_table11 2023"]]
    said = io.StringIO()
    for part in compare.shown(compare.write(tmp_path / "out", rows, found), found):
        Console(width=200, file=said).print(part)
    for run in both:
        (pool,) = (p for p in json.loads((run / "summary.json").read_text())["pooled"] if "stretch" in p)
        stretch = pool["stretch"]
        assert f"{stretch['value']:.2f} ({stretch['low']:.2f} to" in said.getvalue()
        assert pool["reference"] in said.getvalue()
    assert "the change of those pairs that share a seed" in said.getvalue()


def test_of_several_templates_the_terminal_shows_all_together() -> None:
    """Single templates are not tested, so their `p_adjusted` is empty."""
    row: dict[str, Any] = dict.fromkeys(compare.COLUMNS, "0")
    row |= {
        "prompt_set": "s",
        "concept": "nurse",
        "identity": "",
        "arm": "none",
        "attribute": "gender",
        "level": "woman",
    }
    templates = [{"template": name, "p_adjusted": p} for name, p in (("face", ""), ("photo", ""), ("*", "0.012"))]
    said = io.StringIO()
    for part in compare.shown([row | each for each in templates], {"runs": [], "changes": []}):
        Console(width=200, file=said).print(part)
    assert said.getvalue().count("nurse") == 1 and "0.012" in said.getvalue()


def test_square_brackets_in_a_concept_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = dict.fromkeys(compare.COLUMNS, "0") | {"identity": "", "arm": "none", "template": "one"}
    names = ["nurse [/x]", "it [a]", "it [b]", "a :star:"]
    cli._print(compare.shown([row | {"concept": name} for name in names], {"runs": [], "changes": []}))
    out = capsys.readouterr().out
    assert all(name in out for name in names)


def test_a_share_that_is_unknown_is_drawn_as_nothing(tmp_path: Path) -> None:
    row: dict[str, Any] = dict.fromkeys(compare.COLUMNS, "")
    row |= {"concept": "a", "arm": "none", "attribute": "gender", "level": "woman", "baseline": "x", "run": "y"}
    row |= {"baseline_low": "0", "baseline_high": "1", "low": "0.1", "high": "0.3", "share": "0.2", "p_adjusted": ""}
    chart = figures.compared([row], tmp_path)[0]
    assert (tmp_path / f"{chart.stem}.svg").stat().st_size > 1000


def all_labelled(opened: Opened, sheet: Path, truth: Callable[[dict[str, Any]], str]) -> None:
    """A person says of twenty pictures of each concept who is in them."""
    run, study, planned = opened
    readings = line.read_by(run, study)
    sample = labels.draw(run, planned, study.perceive.name, readings, per_concept=20, seed=0)
    rows = [row for shard in planned.shards() for row in run.read_images(shard, ["unit_id", "seed", "arm"]).to_pylist()]
    said = [f"{row['unit_id']},{truth(row)}\n" for row in rows if row["unit_id"] in sample.units]
    sheet.write_text("unit_id,gender\n" + "".join(said))
    labels.take(run, planned, readings, [sheet], now="2026-01-02T03:04:05+00:00")
    line.estimate(opened)


def misread(share: float, wrong: float) -> tuple[Callable[[int, int], str], Callable[[dict[str, Any]], str]]:
    """What a probe says that calls so many men women, and the truth."""

    def truth(row: dict[str, Any]) -> str:
        return LEVELS[chance(row["seed"], "who") > share]

    def said(seed: int, _: int) -> str:
        return "woman" if chance(seed, "wrong") < wrong else truth({"seed": seed})

    return said, truth


def test_where_people_labelled_one_run_alone_both_are_corrected_by_them(
    runs: Callable[..., Opened], tmp_path: Path
) -> None:
    """Nothing changed but the noise: a corrected share beside a raw one would be a quarter away from it."""
    said, truth = misread(0.4, 0.4)
    one, two = runs("one", 0.4, None), runs("two", 0.4, None, seed=7)
    for opened in (one, two):
        perceive_anew(opened, said, None)
    all_labelled(two, tmp_path / "ann.csv", truth)
    rows, found = compare.compare(folders(one, two))
    (mean,) = (entry["change"] for entry in found["changes"] if entry["level"] == "woman")
    each = [row["change"] for row in rows if row["level"] == "woman"]
    assert abs(np.mean(each)) < 0.08 and mean["low"] < 0 < mean["high"]
    assert np.mean([row["baseline_share"] for row in rows if row["level"] == "woman"]) == pytest.approx(0.4, abs=0.08)
    assert all("errors taken to be the same in both runs" in row["method"] for row in rows)


def test_where_one_run_cannot_be_corrected_both_are_raw(runs: Callable[..., Opened]) -> None:
    one, two = runs("one", 0.3), runs("two", 0.3, None, seed=7)
    rows, _ = compare.compare(folders(one, two))
    with (one[0].folder / "estimates.csv").open(newline="") as file:
        raw = {(row["concept"], row["level"]): float(row["raw_share"]) for row in csv.DictReader(file)}
    given = {(row["concept"], row["level"]): row["baseline_share"] for row in rows}
    assert given == pytest.approx(raw, abs=1e-5) and all("raw: " in row["method"] for row in rows)


def test_the_errors_of_a_change_between_runs_are_those_of_the_arm(runs: Callable[..., Opened], tmp_path: Path) -> None:
    arms = ["none", {"suffix": {"text": "smiling"}}]
    one, two = (runs(name, 0.3, seed=seed, images_per_prompt=20, arms=arms) for name, seed in (("one", 0), ("two", 7)))
    all_labelled(two, tmp_path / "ann.csv", lambda row: women(0.3)(row["seed"], 0).replace("cannot tell", "man"))
    rows, _ = compare.compare(folders(one, two))
    assert all(row["method"].endswith("; errors by arm, taken to be the same in both runs") for row in rows)


def test_arms_of_one_name_that_do_otherwise_are_told_apart(runs: Callable[..., Opened]) -> None:
    one, two = (
        runs(name, 0.3, images_per_prompt=8, arms=["none", {"suffix": {"text": text}}])
        for name, text in (("one", "smiling"), ("two", "frowning"))
    )
    _, found = compare.compare(folders(one, two))
    assert [run["differs"] for run in found["runs"]] == [[], ["arms.suffix.text = frowning"]]


def test_an_imported_run_is_told_that_it_is_not_compared(runs: Callable[..., Opened], tmp_path: Path) -> None:
    one = runs("one", 0.3, images_per_prompt=8)
    (tmp_path / "counts").mkdir()
    (tmp_path / "counts" / "study.yaml").write_text("name: counts\ndata: counts.csv\n")
    with pytest.raises(RunError, match=r"counts: is of pictures made elsewhere.*name runs that typecast run drew"):
        compare.compare([one[0].folder, tmp_path / "counts"])
