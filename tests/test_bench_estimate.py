"""The shards that the benchmark of the estimates makes up are those of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import tables
from pipeline.plan import plan
from pipeline.store import Run
from scripts import bench_estimate
from tests.conftest import fake_study


@pytest.mark.parametrize("by_concept", [False, True])
def test_made_up_perceptions_are_counted_and_their_errors_known(tmp_path: Path, by_concept: bool) -> None:
    planned = replace(plan(fake_study(images_per_prompt=3), weights="none"), arms=bench_estimate.ARMS)
    concepts = sorted({prompt.concept for prompt in planned.prompts})
    run, perceiver = Run(tmp_path / "run"), bench_estimate.MadeUp(concepts if by_concept else ())
    bench_estimate.make(run, planned, perceiver)
    readings = tables.described_in(run.perceptions(perceiver.name, "x").with_name("perceiver.json"))
    assert {r.attribute: len(r.levels) for r in readings}["gender_x_skin_tone"] == 10
    assert all(r.confusion is not None and sorted(r.by_concept) == (concepts if by_concept else []) for r in readings)
    counts = tables.tally(run, planned, perceiver.name, readings)
    assert sum(counts.statuses.values()) == len(planned) == 4 * 3 * len(planned.prompts)
    for reading in readings:
        assert sum(n for (_, name, _), n in counts.decisions.items() if name == reading.attribute) == len(planned)
