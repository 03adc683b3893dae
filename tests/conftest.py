"""Studies and runs without a model: a whole line in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from pipeline import line
from pipeline.line import Opened
from pipeline.study import Study, parse

# two busy cores say nothing about the code: no deadlines, and the same examples every time
settings.register_profile("shared", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


def fake_study(**changes: Any) -> Study:
    """The demo's prompts, drawn and read by the fakes that ship."""
    raw: dict[str, Any] = {
        "name": "fake",
        "prompt_sets": ["emoji_occupations"],
        "model": {"path": "fake"},
        "draw": {"height": 16, "width": 16, "threads": 1},
        "images_per_prompt": 30,
        "perceive": {"clip": "fake", "attributes": ["gender", "skin_tone"]},
        "reference": [{"table": "taught_shares"}, {"table": "bls_cps_table11", "year": 2023}],
    }
    return parse(raw | changes, where="fake.yaml")


def pixels_of(opened: Opened) -> set[tuple[str, str]]:
    """What must not depend on how a run came about: `unit_id, sha256` of every image, each exactly once."""
    run, _, planned = opened
    rows = [
        (row["unit_id"], row["sha256"])
        for shard in planned.shards()
        for row in run.read_images(shard, ["unit_id", "sha256"]).to_pylist()
    ]
    assert len(rows) == len({unit for unit, _ in rows}) == len(planned)
    return set(rows)


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[..., Opened]:
    """Draws and perceives a fake study in a folder of the test."""

    def make(folder: str = "run", **changes: Any) -> Opened:
        opened = line.begin(fake_study(**changes), tmp_path / folder)
        line.generate(opened, perceive=True)
        return opened

    return make
