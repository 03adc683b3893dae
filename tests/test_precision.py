"""What an interval needs, held against textbook formulas and simulated audits."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from pipeline import precision
from pipeline.errors import InputError
from pipeline.line import Opened
from pipeline.precision import images_needed, measured_rate, needs, scaled, simulated_half_width, variances
from pipeline.tables import Reading
from tests.conftest import fake_study

SHARP = np.array([[9500, 500], [500, 9500]])


def test_a_perfect_classifier_at_one_half_needs_the_textbooks_1068_images_for_three_points() -> None:
    # 1.96² / 4 / 0.03² = 1067.1
    per_image, floor = variances([0.5, 0.5], np.eye(2, dtype=int) * 10**9)
    assert per_image == pytest.approx([0.25, 0.25], rel=1e-6) and floor == pytest.approx([0, 0], abs=1e-8)
    assert images_needed(per_image[0], 0.0, 0.03) == 1068


def test_the_templates_of_a_concept_share_its_images(tmp_path: Path) -> None:
    found = []
    for templates in ('{one: "a photo of {a_concept}"}', '{one: "a photo of {a_concept}", two: "my {concept}"}'):
        head = "description: d\nsource: s\nlicence: none\nstatus: verified\n"
        (tmp_path / "own.yaml").write_text(f"{head}templates: {templates}\nconcepts: [pilot]\n")
        found += needs(fake_study(prompt_sets=[str(tmp_path / "own.yaml")], reference=[]), [reading(None)], 0.03)
    assert [need.images for need in found] == [1068, 534]


def test_two_levels_have_the_variance_of_rogan_and_gladen() -> None:
    sensitivity, specificity, share, labels = 0.9, 0.8, 0.3, 10_000
    rows = np.array([[sensitivity, 1 - sensitivity], [1 - specificity, specificity]])
    per_image, floor = variances([share, 1 - share], np.rint(rows * labels))
    youden = sensitivity + specificity - 1
    seen = share * sensitivity + (1 - share) * (1 - specificity)
    assert per_image[0] == pytest.approx(seen * (1 - seen) / youden**2, rel=0.001)
    matrix = share**2 * sensitivity * (1 - sensitivity) + (1 - share) ** 2 * specificity * (1 - specificity)
    assert floor[0] == pytest.approx(matrix / labels / youden**2, rel=0.001)


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
    per_image, floor = variances(pi, confusion)
    assert per_image / n == pytest.approx(images.var(0), rel=0.06)
    assert floor == pytest.approx(matrix.var(0), rel=0.08)


@pytest.mark.parametrize(
    ("share", "confusion", "half"),
    [
        (0.5, SHARP // 50, 0.08),
        (0.3, [[160, 20, 20], [10, 170, 20]], 0.10),
        (0.2, SHARP, 0.05),
    ],
)
def test_the_images_that_the_formula_asks_for_give_the_width_that_was_wanted(
    share: float, confusion: np.ndarray, half: float
) -> None:
    shares = [share, 1 - share]
    per_image, floor = variances(shares, confusion)
    images = images_needed(per_image[0], floor[0], half)
    assert images is not None
    found = simulated_half_width(shares, confusion, images, 0, rng=np.random.default_rng(1))
    assert found == pytest.approx(half, rel=0.10)


def test_where_the_matrix_is_the_floor_there_is_no_number_and_more_labels_help() -> None:
    few = SHARP // 100
    per_image, floor = variances([0.5, 0.5], few)
    assert images_needed(per_image[0], floor[0], 0.03) is None
    assert math.sqrt(floor[0] / variances([0.5, 0.5], few * 4)[1][0]) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [0.5, 0.25, 0.25], [math.nan, 1], [-0.1, 1.1]])
def test_shares_that_are_none_are_named(shares: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^shares "):
        variances(shares, SHARP)


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
    return console.file.getvalue()


def test_the_worst_concept_is_the_one_whose_reference_is_nearest_to_one_half() -> None:
    found = needs(fake_study(), [reading(None)], 0.03)[0]
    import prompt_sets

    table = prompt_sets.load_reference("taught_shares")
    concepts = {p.concept for p in fake_study().prompts()}
    given = {c: table.distribution(c, "gender", ("woman", "man")) for c in concepts}
    nearest = min(abs(d.shares[0] - 0.5) for d in given.values() if not isinstance(d, str))
    assert abs(found.share - 0.5) == pytest.approx(nearest)
    z = stats.norm.ppf(0.975)
    assert found.images == math.ceil(z**2 * found.share * (1 - found.share) / 0.03**2)
    assert "taken at its word" in said([found], 0.03)


def test_without_a_reference_the_share_is_one_half() -> None:
    found = needs(fake_study(reference=[]), [reading(SHARP)], 0.10)[0]
    assert found.share == 0.5 and found.reference == ""
    assert "(no reference)" in said([found], 0.10)


def test_a_floor_is_said_and_what_would_lower_it() -> None:
    found = needs(fake_study(reference=[]), [reading(np.array([[9, 1], [1, 9]]))], 0.05)[0]
    assert found.images is None and found.labels == 10 and found.from_matrix > 0.05
    assert found.simulated > 0.05
    text = said([found], 0.05, 2.0)
    images = 20 * found.images_then
    assert f"With the labelled pictures named above, {found.images_then:,} images" in text
    assert f"{images:,} images: {images / 2 / 3600:,.2f} hours" in text
    assert "More images cannot give ±5 points" in text and "30 more" in text and "No number of images" in text
    # With these labels the images do, and the interval is as wide as was wanted.
    rows = np.rint(np.array([[9, 1], [1, 9]]) * found.labels_needed / 10)
    then = simulated_half_width([0.5, 0.5], rows, found.images_then, 0, rng=np.random.default_rng(0))
    assert then == pytest.approx(0.05, rel=0.1)


def test_the_hours_are_images_over_the_rate() -> None:
    found = needs(fake_study(reference=[]), [reading(None)], 0.05)
    assert found[0].images == 385
    assert f"{20 * 385:,} images: {20 * 385 / 2 / 3600:.2f} hours" in said(found, 0.05, 2.0)
    assert "give --rate" in said(found, 0.05)


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
