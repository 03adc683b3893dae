"""The simulation that judges the intervals is itself judged: by exact results, brute force and broken instruments."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from pipeline import simulation, validate
from pipeline.estimates import Shares, wilson
from pipeline.simulation import CREDIBLE, Cell, Measured, Unfriendly, measure, mislead, upper_bound
from tests.test_cli import HOME
from tests.test_engines import until


def cell(**changes: Any) -> Cell:
    friendly: dict[str, Any] = {"levels": 2, "shares": "middle", "images": 50, "labels": 500}
    return Cell(**friendly | {"errors": "sharp", "undecided": "none"} | changes)


def told(covered_at: list[float], width_at: list[float], inner: float) -> Measured:
    zero = dict.fromkeys(("coverage", "upper", "lowest", "width", "bias", "naive_coverage", "naive_bias"), 0.0)
    return Measured(
        audits=1,
        unanswered=0,
        oracle_width=1.0,
        covered_at=covered_at,
        width_at=width_at,
        inner_width=inner,
        **zero,
    )


def test_the_grid_is_wide_and_no_cell_is_in_it_twice() -> None:
    cells = simulation.grid()
    assert len(set(cells)) == len(cells) >= 60
    for field, all_of_them in {
        "levels": {2, 3, 5, 10},
        "shares": set(simulation.SHARES),
        "images": {20, 200, 2000},
        "labels": {10, 50, 500},
        "errors": set(simulation.RIGHT),
        "undecided": set(simulation.UNDECIDED),
    }.items():
        assert {getattr(c, field) for c in cells} == all_of_them
        assert {getattr(c, field) for c in cells if c.levels == 2} == ({2} if field == "levels" else all_of_them)


def test_the_truths_and_the_errors_of_every_cell_are_distributions() -> None:
    for c in simulation.grid():
        assert len(c.truth) == len(c.chances) == c.levels and c.truth.sum() == pytest.approx(1)
        assert c.chances.sum(1) == pytest.approx(1) and (c.chances >= 0).all()
        assert c.chances.shape[1] == c.levels + (c.undecided != "none")
        right = np.diag(c.chances) / c.chances[:, : c.levels].sum(1)
        assert (right[0], right[-1]) == pytest.approx(simulation.RIGHT[c.errors])


def test_the_bound_is_clopper_and_pearsons_when_an_audit_is_held_or_not() -> None:
    covered = np.repeat([1.0, 0.0], [1850, 150])
    assert upper_bound(covered) == pytest.approx(proportion_confint(1850, 2000, alpha=0.02, method="beta")[1], abs=1e-9)
    assert upper_bound(np.ones(2000)) == 1


def test_levels_that_agree_count_once_and_levels_that_do_not_count_each() -> None:
    rng = np.random.default_rng(0)
    together = np.repeat(rng.random((2000, 1)) < 0.93, 5, 1).mean(1)
    apart = (rng.random((2000, 5)) < 0.93).mean(1)
    once = proportion_confint(2000 * together.mean(), 2000, alpha=0.02, method="beta")[1]
    each = proportion_confint(10_000 * apart.mean(), 10_000, alpha=0.02, method="beta")[1]
    assert upper_bound(together) == pytest.approx(once, abs=1e-6)
    assert upper_bound(apart) == pytest.approx(each, abs=0.0005)


@pytest.mark.parametrize("dependence", [0.0, 0.5, 1.0])
def test_the_bound_is_below_the_true_coverage_one_time_in_a_hundred(dependence: float) -> None:
    rng, truth, audits, trials = np.random.default_rng(1), 0.93, 400, 1000
    shared = rng.random((trials, audits, 1)) < dependence
    held = np.where(shared, rng.random((trials, audits, 1)), rng.random((trials, audits, 4))) < truth
    below = sum(upper_bound(one) < truth for one in held.mean(2))
    assert stats.binomtest(below, trials, 0.01).pvalue > 0.001


def test_wilson_of_a_table_is_wilson_of_each() -> None:
    low, high = simulation.naive(np.array([[3, 7], [0, 20]]))
    for k, n, i in ((3, 10, (0, 0)), (7, 10, (0, 1)), (0, 20, (1, 0)), (20, 20, (1, 1))):
        assert (low[i], high[i]) == pytest.approx(wilson(k, n)[1:3])


def test_the_curve_of_a_posterior_that_is_right_follows_the_credible_level() -> None:
    """Draws around an estimate that is itself drawn around the truth: a central interval covers what it says."""
    rng, spread = np.random.default_rng(2), 0.02
    centre = 0.5 + spread * rng.standard_normal((1000, 1, 1))
    found = simulation.curve(centre + spread * rng.standard_normal((1000, 1024, 1)), np.array([0.5])).mean(0)
    assert found[:, 0] == pytest.approx(CREDIBLE, abs=0.03)
    wide = 2 * spread * stats.norm.ppf((1 + CREDIBLE) / 2)
    assert found[:20, 1] == pytest.approx(wide[:20], rel=0.03)  # further out a thousand draws fall short


def test_the_shortest_interval_that_covers_is_found_between_two_levels() -> None:
    n = len(CREDIBLE)
    covered, width = np.linspace(0.8, 0.99, n), np.linspace(1.0, 2.0, n)
    found = told(covered.tolist(), width.tolist(), inner=2.0)
    assert found.over(found.rank()) == pytest.approx(2.0 / (1 + (0.95 - 0.8) / 0.19))
    assert told([0.99] * n, width.tolist(), 2.0).rank() == 0 and told([0.5] * n, width.tolist(), 2.0).rank() == n - 1


def test_the_shortest_interval_must_cover_in_every_cell_of_its_size() -> None:
    n = len(CREDIBLE)
    width = np.linspace(1.0, 2.0, n).tolist()
    easy, hard = told([0.99] * n, width, 2.0), told(np.linspace(0.8, 1.0, n).tolist(), width, 2.0)
    (one, told_one), (two, told_two), (alone, _) = validate.widths(
        [(cell(), easy), (cell(errors="poor"), hard), (cell(images=20), easy)]
    )
    assert (one, two) == pytest.approx((2.0 / 1.75, 2.0 / 1.75)) and alone == 2.0
    assert (told_one, told_two) == pytest.approx((2.0, 2.0 / 1.75))


def test_with_hardly_an_error_the_naive_coverage_is_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(simulation.RIGHT, "sharp", (1.0, 1.0))
    found = measure(cell(), 400, np.random.default_rng(0))
    share = simulation.SHARES["middle"][2][0]
    held = [k for k in range(51) if wilson(k, 50).low <= share <= wilson(k, 50).high]
    exact = float(stats.binom(50, share).pmf(held).sum())
    assert found.naive_coverage == pytest.approx(exact, abs=0.035) and abs(found.naive_bias) < 0.012
    assert found.coverage == pytest.approx(0.95, abs=0.04) and abs(found.bias) < 0.015
    assert found.width / found.oracle_width == pytest.approx(1, abs=0.05) and found.unanswered == 0


def test_an_instrument_that_is_too_sure_fails_and_one_that_is_too_shy_is_too_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = simulation.corrected_shares_each

    def scaled(by: float) -> Any:
        def answer(*args: Any, **options: Any) -> list[Shares]:
            return [
                Shares(
                    value=s.value,
                    low=s.value - by * (s.value - s.low),
                    high=s.value + by * (s.high - s.value),
                    n=s.n,
                    method=s.method,
                    draws=s.draws,
                )
                for s in real(*args, **options)
            ]

        return answer

    monkeypatch.setattr(simulation, "corrected_shares_each", scaled(0.6))
    sure = measure(cell(), 300, np.random.default_rng(0))
    monkeypatch.setattr(simulation, "corrected_shares_each", scaled(1.5))
    shy = measure(cell(), 300, np.random.default_rng(0))
    assert sure.failed and not shy.failed and sure.over(sure.rank()) < 0.8
    assert shy.over(shy.rank()) > validate.WIDEST


def test_errors_that_differ_by_ten_points_are_not_covered_and_none_are() -> None:
    with_gap, without = (
        mislead(Unfriendly(kind="concept", gap=gap, images=2000), 150, np.random.default_rng(0)) for gap in (0.1, 0.0)
    )
    assert with_gap.coverage < 0.5 and without.coverage > 0.89
    # Read 0.3 * 0.8 and corrected as if 0.9 of both were right: (0.24 - 0.1) / 0.8 - 0.3.
    assert with_gap.bias == pytest.approx((0.3 * 0.8 - 0.1) / 0.8 - 0.3, abs=0.01)
    # The probe leans by 0.1; the line names the smallest lean that is enough, and so one below it.
    assert with_gap.erased_by is not None and 0.05 < with_gap.erased_by < 0.1


def test_the_short_form_holds_and_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, failed = validate.validate(tmp_path, short=True, seed=0)
    assert failed == [] and "typecast validate --short --seed 0" in text
    rows = [line for line in text.splitlines() if line.endswith(("| holds |", "| fails |"))]
    assert len(rows) == len(simulation.few()) and not any("nan" in row for row in rows)
    monkeypatch.setattr(validate, "_simulate", None)
    assert validate.validate(tmp_path, short=True, seed=0)[0] == text
    assert "another sampler" not in capsys.readouterr().err
    monkeypatch.setattr(validate, "_sampler", lambda: "of tomorrow")
    assert validate.validate(tmp_path, short=True, seed=0)[0] == text
    n = len(list(tmp_path.iterdir()))
    assert f"{n} of its {n} cells are by another sampler than this one" in capsys.readouterr().err


def test_the_tables_go_between_the_marks_and_leave_the_prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "validation.md"
    page.write_text(f"before\n\n{validate.OPEN}old\n{validate.CLOSE}after\n", encoding="utf-8")
    monkeypatch.setattr(validate, "PAGE", page)
    validate.publish("new")
    validate.publish("newer")
    assert page.read_text(encoding="utf-8") == f"before\n\n{validate.OPEN}\nnewer\n\n{validate.CLOSE}after\n"
    validate.publish("| a |\n|---|\n| 1 |\n| 2 |")
    for fewer in ("| a |\n|---|\n| 1 |", "none"):
        validate.publish(fewer)
    assert "| 2 |" in page.read_text(encoding="utf-8"), "a run that has only begun leaves the rows that are there"
    validate.publish("| a |\n|---|\n| 3 |\n| 4 |")
    assert "| 4 |" in page.read_text(encoding="utf-8") and "| 2 |" not in page.read_text(encoding="utf-8")
    monkeypatch.setattr(validate, "PAGE", tmp_path / "none.md")
    validate.publish("no checkout")
    assert not (tmp_path / "none.md").exists()


def test_the_page_says_what_the_grid_is() -> None:
    page = (Path(__file__).parents[1] / "docs" / "validation.md").read_text(encoding="utf-8")
    assert validate.OPEN in page and validate.CLOSE in page
    for right in simulation.RIGHT.values():
        assert re.search(rf"{right[0]:.0%}"[:-1] + r"\s+to\s+" + rf"{right[1]:.0%}"[:-1], page)
    assert f"{validate.FLOOR:.0%}".replace("%", " %") in page and str(validate.WIDEST) in page
    assert all(kind in page for kind in (*simulation.SHARES, *simulation.UNDECIDED, *simulation.RIGHT))


def test_a_cell_without_an_inner_share_has_no_width_to_compare() -> None:
    found = measure(cell(shares="none"), 20, np.random.default_rng(0))
    assert found.covered_at == [] and math.isnan(found.over(0.0)) and 0 < found.width < 1


def test_a_process_that_is_killed_ends_the_command_with_one_message(tmp_path: Path) -> None:
    words = ["validate", "--short", "--out", str(tmp_path)]
    command = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words], stderr=subprocess.PIPE, text=True, cwd=HOME
    )

    def simulating() -> list[psutil.Process]:
        return [p for p in psutil.Process(command.pid).children() if any("spawn_main" in w for w in p.cmdline())]

    until(simulating)
    simulating()[0].kill()
    _, said = command.communicate(timeout=120)
    assert command.returncode == 2
    assert f"typecast: {tmp_path}: a process was killed" in said and "Traceback" not in said
