"""What an interval needs, held against textbook formulas and simulated audits."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from classifiers.confusion import Errors, checked_confusion, errors_of_all, errors_of_each
from classifiers.correction import corrected_shares_many
from pipeline import cli, precision
from pipeline.errors import InputError
from pipeline.line import Opened
from pipeline.precision import GRID, MANY, Z, measured_rate, needs, scaled, simulated_half_widths, variances
from pipeline.tables import Reading
from tests.conftest import fake_study

SHARP = np.array([[9500, 500], [500, 9500]])


def told_by(confusion: npt.ArrayLike) -> Errors:
    """What counts on labelled pictures say of the errors, as a command reads them."""
    return errors_of_all(checked_confusion(confusion))


def test_a_perfect_classifier_at_one_half_needs_the_textbooks_1068_images_for_three_points() -> None:
    # 1.96² / 4 / 0.03² = 1067.1
    per_image, floor = variances([0.5, 0.5], told_by(np.eye(2, dtype=int) * 10**9))
    assert per_image == pytest.approx([0.25, 0.25], rel=1e-6) and floor == pytest.approx([0, 0], abs=1e-8)
    assert math.ceil(per_image[0] * (Z / 0.03) ** 2) == 1068


def test_the_templates_of_a_concept_share_its_images(tmp_path: Path) -> None:
    found = []
    for templates in ('{one: "a photo of {a_concept}"}', '{one: "a photo of {a_concept}", two: "my {concept}"}'):
        head = "description: d\nsource: s\nlicence: none\nstatus: verified\n"
        (tmp_path / "own.yaml").write_text(f"{head}templates: {templates}\nconcepts: [pilot]\n")
        found += needs(fake_study(prompt_sets=[str(tmp_path / "own.yaml")], reference=[]), [reading(None)], 0.03)
    # the textbook's 1068, and half of it, to the next number that is tried
    assert [need.images for need in found] == [1100, 560]


def test_two_levels_have_the_variance_of_rogan_and_gladen() -> None:
    sensitivity, specificity, share, labels = 0.9, 0.8, 0.3, 10_000
    rows = np.array([[sensitivity, 1 - sensitivity], [1 - specificity, specificity]])
    per_image, floor = variances([share, 1 - share], told_by(np.rint(rows * labels)))
    youden = sensitivity + specificity - 1
    seen = share * sensitivity + (1 - share) * (1 - specificity)
    assert per_image[0] == pytest.approx(seen * (1 - seen) / youden**2, rel=0.001)
    matrix = share**2 * sensitivity * (1 - sensitivity) + (1 - share) ** 2 * specificity * (1 - specificity)
    assert floor[0] == pytest.approx(matrix / labels / youden**2, rel=0.001)


def test_a_record_that_tells_nothing_gives_no_finite_variance() -> None:
    with pytest.warns(UserWarning, match="almost singular"):
        assert np.isinf(variances([0.3, 0.7], told_by([[5, 5], [5, 5]]))).all()


def test_with_abstention_and_three_levels_both_variances_are_what_resampling_shows() -> None:
    rng, draws, n = np.random.default_rng(0), 20_000, 3000
    pi = np.array([0.2, 0.5, 0.3])
    confusion = np.array([[700, 60, 40, 200], [50, 800, 50, 100], [30, 120, 550, 300]])
    rows = (confusion + 0.5)[:, :3] / (confusion + 0.5)[:, :3].sum(1, keepdims=True)
    told = (confusion[:, :3].sum(1) + 1.5) / (confusion.sum(1) + 2)

    def corrected(seen: np.ndarray, errors: np.ndarray, chance: np.ndarray) -> np.ndarray:
        share = np.linalg.solve(np.swapaxes(errors, -1, -2), (seen / seen.sum(-1, keepdims=True))[..., None])[..., 0]
        share = share / chance
        return np.asarray(share / share.sum(-1, keepdims=True))

    seen = np.append(pi * told @ rows, 1 - pi @ told)
    images = corrected(rng.multinomial(n, seen, draws)[:, :3].astype(float), rows, told)
    errors = np.stack([rng.dirichlet(row[:3] + 0.5, draws) for row in confusion], 1)
    chance = np.stack([rng.beta(row[:3].sum() + 1.5, row[3] + 0.5, draws) for row in confusion], 1)
    matrix = corrected(np.broadcast_to(pi * told @ rows, (draws, 3)), errors, chance)
    per_image, floor = variances(pi, told_by(confusion))
    assert per_image / n == pytest.approx(images.var(0), rel=0.06)
    assert floor == pytest.approx(matrix.var(0), rel=0.08)


GOOD3 = np.array([[95, 3, 2], [3, 94, 3], [2, 3, 95]])
SINGULAR3 = np.array([[40, 35, 25], [38, 37, 25], [5, 5, 90]])


def brute_force(shares: list[float], confusion: np.ndarray, images: int, audits: int = 24) -> np.ndarray:
    """Mean half-widths `(K,)` from audits drawn one by one, by the rates of the labels."""
    rng, levels = np.random.default_rng(99), len(shares)
    prior = np.where(np.eye(levels, dtype=bool), 0.5, 0.5 / (levels - 1))
    rates = (confusion + prior) / (confusion + prior).sum(1, keepdims=True)
    seen = [np.bincount(rng.choice(levels, images, p=shares @ rates), minlength=levels) for _ in range(audits)]
    found = corrected_shares_many(np.array(seen), confusion, rng=rng)
    return np.asarray(np.mean([s.high - s.low for s in found], axis=0) / 2)


@pytest.mark.filterwarnings("ignore:confusion is almost singular")
@pytest.mark.parametrize(
    "confusion",
    [SHARP // 50, np.array([[55, 45], [50, 50]]), GOOD3, pytest.param(SINGULAR3, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_four_stratified_audits_are_as_wide_as_many_that_are_drawn_one_by_one(
    share: float, confusion: np.ndarray
) -> None:
    levels = len(confusion)
    shares = [share, *[(1 - share) / (levels - 1)] * (levels - 1)]
    found = simulated_half_widths(shares, confusion, 200, rng=np.random.default_rng(1)).mean(0)
    assert found == pytest.approx(brute_force(shares, confusion, 200), rel=0.25, abs=0.002)


def test_by_concept_the_audits_are_as_wide_as_those_of_the_report() -> None:
    """Against `corrected_shares_many` of drawn images, as `estimate` asks it, of a concept that nobody labelled and one that
    many did: by one matrix for all, both would be as narrow."""
    rng = np.random.default_rng(3)
    matrices = np.array(
        [[[0, 0, 0], [0, 0, 0]], [[60, 2, 0], [1, 60, 0]], [[3, 3, 0], [0, 6, 0]], [[6, 0, 1], [1, 5, 0]]]
    )
    shares, found, expected = [0.3, 0.7], [], []
    for group in (0, 1):
        found.append(simulated_half_widths(shares, matrices, 200, group=group, rng=rng).mean())
        known = errors_of_each(matrices)
        right = known.taken_for[group] / known.taken_for[group].sum(1, keepdims=True)
        chance = known.decided[group] / (known.decided[group] + known.undecided[group])
        taken = np.column_stack([right * chance[:, None], 1 - chance])
        widths = []
        for counts in rng.multinomial(200, np.array(shares) @ taken, 20):
            others = np.zeros((len(matrices), 3), int)
            others[group] = counts
            one = corrected_shares_many(others, matrices, rng=rng)[group]
            widths.append((one.high - one.low).mean() / 2)
        expected.append(np.mean(widths))
    assert found == pytest.approx(expected, rel=0.15)
    assert found[0] > 2 * found[1]


def test_more_labels_by_concept_are_as_many_for_each() -> None:
    matrices = np.array([[[0, 0], [0, 0]], [[18, 2], [0, 20]]])
    more = precision._grown(matrices, 2.0) - matrices
    assert more.sum((0, 3)) / precision.AUDITS == pytest.approx(np.full((2, 2), 10), abs=1)
    assert (precision._grown(matrices, 1.0) == matrices).all()


def test_at_its_word_the_width_is_wilsons() -> None:
    found = simulated_half_widths([0.0, 1.0], None, 100, rng=np.random.default_rng(0)).mean(0)
    z2 = stats.norm.ppf(0.975) ** 2
    assert found == pytest.approx([z2 / (100 + z2) / 2] * 2)


def undecided_half_width(n: int, undecided: float) -> float:
    """At a share of one half of the decided, by statsmodels: from none of the undecided to all of them."""
    decided = round(n * (1 - undecided))
    low = proportion_confint(decided / 2, n, method="wilson")[0]
    return float(proportion_confint(decided / 2 + n - decided, n, method="wilson")[1] - low) / 2


def test_what_cannot_be_told_widens_an_interval_at_its_word() -> None:
    found = simulated_half_widths([0.5, 0.5], None, 400, undecided=0.136, rng=np.random.default_rng(0)).mean(0)
    assert undecided_half_width(400, 0.136) == pytest.approx(0.115, abs=0.0005)
    assert found == pytest.approx([undecided_half_width(400, 0.136)] * 2, rel=0.03)


def test_more_labels_keep_the_rates_and_less_than_a_picture_is_one_in_some_audits() -> None:
    grown = precision._grown(np.array([[9, 1], [0, 10]]), 1.5)
    # 5 more at the posterior mean (1 + 1/2) / 11, and at (0 + 1/2) / 11
    assert grown[:, 0, 1].mean() == pytest.approx(1 + 5 * 1.5 / 11, abs=0.125)
    assert sorted(grown[:, 1, 0].tolist()) == [0, 0, 0, 1]
    assert (precision._grown(SHARP, 1.0) == SHARP).all()


def test_where_the_matrix_is_the_floor_there_is_no_number_and_more_labels_help() -> None:
    few = SHARP // 100
    floor = variances([0.5, 0.5], told_by(few))[1]
    assert Z * math.sqrt(floor[0]) > 0.03
    assert math.sqrt(floor[0] / variances([0.5, 0.5], told_by(few * 4))[1][0]) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [0.5, 0.25, 0.25], [math.nan, 1], [-0.1, 1.1]])
def test_shares_that_are_none_are_named(shares: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^shares "):
        variances(shares, told_by(SHARP))


def test_a_matrix_of_other_size_keeps_its_rates_and_no_row_is_emptied() -> None:
    assert scaled(np.array([[90, 10], [40, 160]]), 50).tolist() == [[45, 5], [10, 40]]
    assert scaled(np.array([[2, 0, 98], [0, 50, 50]]), 5).tolist()[0][0] == 1


# A study.


def reading(confusion: np.ndarray | None) -> Reading:
    return Reading("gender", "perceived gender presentation", ("woman", "man"), confusion)


def said(found: list[precision.Need], half: float, rate: float | None = None) -> str:
    console = Console(width=300, file=io.StringIO())
    for part in precision.shown(fake_study(), found, half, rate, "--rate"):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_the_worst_concept_is_the_one_whose_reference_is_nearest_to_one_half() -> None:
    found = needs(fake_study(), [reading(None)], 0.03)[0]
    import prompt_sets

    table = prompt_sets.load_reference("taught_shares")
    concepts = {p.concept for p in fake_study().prompts()}
    given = {c: table.distribution(c, "gender", ("woman", "man")) for c in concepts}
    nearest = min(abs(d.shares[0] - 0.5) for d in given.values() if not isinstance(d, str))
    assert abs(found.now.share - 0.5) == pytest.approx(nearest)
    z = stats.norm.ppf(0.975)
    assert found.images is not None
    assert 1 / 1.02 < found.images / (z**2 * found.now.share * (1 - found.now.share) / 0.03**2) < 1.15
    assert "each 1% that it cannot tell adds up to half a point" in said([found], 0.03)


def test_a_width_that_the_undecided_leave_no_room_for_is_reached_by_no_number() -> None:
    wide, enough = (
        needs(fake_study(reference=[]), [reading(None)], half, undecided={"gender": 0.136})[0] for half in (0.05, 0.10)
    )
    assert wide.images is None and "6.8 of the points are theirs at any number" in said([wide], 0.05)
    assert "No number of images up to 10,000 per prompt gives ±5 points: simulated, those give ±7.8" in said(
        [wide], 0.05
    )
    assert enough.images is not None
    assert undecided_half_width(enough.images, 0.136) == pytest.approx(0.10, rel=0.03)


def test_a_reference_that_leaves_out_a_level_is_not_no_reference() -> None:
    study = fake_study(
        reference=[{"table": "bls_cps_table11b", "year": 2023}], perceive={"clip": "fake", "attributes": ["age"]}
    )
    age = Reading("age", "perceived age group", ("child", "adult", "older"), None)
    found = needs(study, [age], 0.10)
    assert found[0].now.share == 0.5 and "50% (reference not whole)" in said(found, 0.10)


def test_square_brackets_of_a_concept_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "description: d\nsource: s\nlicence: none\nstatus: verified\ntemplates: {one: 'a {concept}'}\n"
    (tmp_path / "own.yaml").write_text(head + "concepts: ['nurse [/x] :star:']\n")
    study = fake_study(prompt_sets=[str(tmp_path / "own.yaml")], reference=[])
    found = needs(study, [reading(None)], 0.05, undecided={"gender": 0.2})
    cli._print(precision.shown(study, found, 0.05, None, "[/y]"))
    assert capsys.readouterr().out.count("nurse [/x]") >= 1


def test_without_a_reference_the_share_is_one_half() -> None:
    found = needs(fake_study(reference=[]), [reading(SHARP)], 0.10)[0]
    assert found.now.share == 0.5 and found.now.case.reference == ""
    assert "(no reference)" in said([found], 0.10)


def test_a_floor_is_said_and_what_would_lower_it() -> None:
    few = np.array([[9, 1], [1, 9]])
    found = needs(fake_study(reference=[]), [reading(few)], 0.05)[0]
    assert found.images is None and found.now.labels == 10 and found.now.images == MANY
    assert brute_force([0.5, 0.5], few, MANY, audits=4).max() > 0.05
    text = said([found], 0.05, 2.0)
    assert "no number of images up to 10,000 per prompt gives ±5 points" in text
    assert "No number of images gives ±5 points" in text
    assert found.then is not None and found.images_then == found.then.images
    images = 20 * found.then.images
    assert f"With the labelled pictures named above, {found.then.images:,} images" in text
    assert f"{images:,} images: {images / 2 / 3600:,.2f} hours" in text
    # With these labels the images do, and with a quarter fewer labels they don't: at the rates that are known, 9½ / 11.
    rates = np.array([[9.5, 1.5], [1.5, 9.5]]) / 11
    for labels, does in ((found.then.labels, True), (round(0.7 * found.then.labels), False)):
        wide = brute_force([0.5, 0.5], np.rint(rates * labels).astype(int), found.then.images).max()
        assert wide <= 1.08 * 0.05 if does else wide > 0.05


@pytest.mark.parametrize(
    ("share", "confusion"), [(0.02, SHARP // 50), (0.0, SHARP // 50), (0.5, SHARP // 50), (0.02, GOOD3), (0.5, GOOD3)]
)
def test_the_images_that_are_named_give_the_width_that_was_wanted_and_fewer_do_not(
    share: float, confusion: np.ndarray, tmp_path: Path
) -> None:
    levels = len(confusion)
    shares = [share, *[(1 - share) / (levels - 1)] * (levels - 1)]
    need = found_for([shares], confusion, 0.08)
    assert need.images is not None
    assert brute_force(shares, confusion, need.images).max() < 1.1 * 0.08
    assert brute_force(shares, confusion, round(0.7 * need.images)).max() > 0.92 * 0.08


@pytest.mark.filterwarnings("ignore:confusion is almost singular")
@pytest.mark.parametrize("confusion", [np.array([[55, 45], [50, 50]]), pytest.param(SINGULAR3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_matrix_that_hardly_tells_levels_apart_has_no_number(share: float, confusion: np.ndarray) -> None:
    levels = len(confusion)
    shares = [share, *[(1 - share) / (levels - 1)] * (levels - 1)]
    found = found_for([shares], confusion, 0.02)
    assert found.images is None
    assert brute_force(shares, confusion, 1000, audits=4).max() > 0.02


def test_a_rare_share_is_not_worst_where_its_formula_is_wrong() -> None:
    """By the delta method the matrix is the floor at 2.5 %, ±3.9 points; simulated, one half needs more images."""
    found = found_for([[0.025, 0.975], [0.5, 0.5]], np.array([[159, 4, 2], [10, 158, 1]]), 0.04)
    assert found.images is not None and found.now.share == 0.5


def test_labels_that_halve_an_interval_halve_it_and_where_none_do_that_is_said() -> None:
    few = np.array([[9, 1], [1, 9]])
    found = found_for([[0.5, 0.5]], few, 0.05)
    assert found.halved is not None and found.halved.half <= found.before.half / 2
    rates = np.array([[9.5, 1.5], [1.5, 9.5]]) / 11
    more = np.rint(rates * found.halved.labels).astype(int)
    now, then = (brute_force([0.5, 0.5], m, found.before.images).max() for m in (few, more))
    assert then / now == pytest.approx(0.5, abs=0.07)
    assert f"{found.halved.labels:,} labels halve" in said([found], 0.05)
    sharp = found_for([[0.5, 0.5]], SHARP, 0.05)
    assert sharp.halved is not None and sharp.halved.half > sharp.before.half / 2
    assert "No number of labels up to 10,000 halves" in said([sharp], 0.05)


def test_the_same_seed_says_the_same() -> None:
    a, b = (found_for([[0.3, 0.7]], SHARP // 50, 0.1) for _ in range(2))
    assert (a.now.images, a.now.half, a.then, a.halved and a.halved.half) == (
        b.now.images,
        b.now.half,
        b.then,
        b.halved and b.halved.half,
    )


@pytest.mark.parametrize("guess", [0, 30, 1e9])
def test_the_search_finds_the_first_of_the_grid_from_any_guess(guess: float) -> None:
    one = case([0.5, 0.5])

    def audit(of: precision.Case, n: int, times: int) -> precision.Audited:
        return precision.Audited(n, 0, 1 / n, 0.0, of, 0)

    assert precision._fewest(GRID, [one], audit, 1 / 100, guess).images == 100
    assert precision._fewest(GRID, [one], audit, 0.0, guess).images == MANY
    assert precision._fewest(GRID, [one], audit, 1.0, guess).images == 1


def case(shares: list[float]) -> precision.Case:
    return precision.Case(
        concept="pilot", reference="a table", shares=np.array(shares), asked=range(len(shares)), templates=1
    )


def found_for(shares: list[list[float]], confusion: np.ndarray, half: float) -> precision.Need:
    """What concepts of these shares need."""
    audit, labels = precision._audit(confusion, 7), int(confusion.sum(1).min())
    now, then, before, halved = precision._corrected([case(row) for row in shares], audit, labels, half)
    levels = ("woman", "man", "neither")[: len(confusion)]
    return precision.Need(title="gender", levels=levels, half=half, now=now, then=then, before=before, halved=halved)


def test_the_hours_are_images_over_the_rate() -> None:
    found = needs(fake_study(reference=[]), [reading(None)], 0.05)
    assert found[0].images == 400  # 385 to the next number that is tried
    assert f"{20 * 400:,} images: {20 * 400 / 2 / 3600:.2f} hours" in said(found, 0.05, 2.0)
    assert "give --rate" in said(found, 0.05)


def test_with_the_advised_labels_the_hours_are_of_the_most_images_that_some_attribute_then_needs() -> None:
    """One has a number now but a smaller one with more labels, one needs more labels, and one is helped by nothing."""

    def at(images: int, labels: int, half: float) -> precision.Audited:
        return precision.Audited(images, labels, half, 0.0, case([0.5, 0.5]), 0)

    def need(title: str, now: precision.Audited, then: precision.Audited | None) -> precision.Need:
        return precision.Need(
            title=title, levels=("woman", "man"), half=0.03, now=now, then=then, before=now, halved=now
        )

    slow = need("perceived tone", at(9000, 55, 0.03), at(2000, 110, 0.03))
    floor = need("perceived gender", at(MANY, 165, 0.04), at(800, 560, 0.03))
    lost = need("perceived age", at(MANY, 12, 0.2), at(MANY, MANY, 0.1))
    text = said([slow, floor], 0.03, 2.0)
    assert "are 180,000 images (not for gender: there no number gives ±3 points): 25.00 hours" in text
    assert "With the labelled pictures named above, 2,000 images" in text and "40,000 images: 5.56 hours" in text
    text = said([slow, floor, lost], 0.03, 2.0)
    assert "180,000 images (not for gender, age: there no number" in text
    assert "40,000 images (not for age: there no number" in text
    assert "Nor with 10,000 labelled pictures: simulated, ±10.0" in text


def test_the_rate_is_measured_from_the_seconds_of_a_run(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    run, _, planned = drawn()
    seconds = [s for shard in planned.shards() for s in run.read_images(shard, ["seconds"])["seconds"].to_pylist()]
    assert measured_rate(run.folder) == pytest.approx(len(seconds) / sum(seconds))
    assert measured_rate(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("half", "labels", "named"), [(0.0, None, "precision"), (0.6, None, "precision"), (0.03, 0, "labels")]
)
def test_a_wish_that_cannot_be_meant_is_one_message(half: float, labels: int | None, named: str) -> None:
    with pytest.raises(InputError, match=f"--{named}"):
        needs(fake_study(), [reading(SHARP)], half, labels)


def test_more_labels_say_nothing_where_the_errors_are_not_known() -> None:
    with pytest.raises(InputError, match=r"--labels 500: .* not known of perceived gender presentation"):
        needs(fake_study(), [reading(None)], 0.05, 500)
