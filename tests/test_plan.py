"""Units, seeds, batches and shards."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import study
from pipeline.plan import Plan, plan, seed_of
from pipeline.types import Prompt, digest
from tests.conftest import fake_study

PROMPT = Prompt(prompt_set="s", concept="cook", template="photo", text="a photo of a cook")


def planned(**changes: object) -> Plan:
    return plan(fake_study(**changes), weights="w")


def test_every_repeat_has_its_own_noise() -> None:
    """A public tool gave every repeat of a prompt the seed 0: its five repeats were one image."""
    one = planned(images_per_prompt=40)
    seeds = [unit.seed for shard in one.shards() for unit in one.units(shard)]
    assert len(set(seeds)) == len(seeds) == 800


def test_a_seed_is_the_same_in_another_process() -> None:
    """A public tool seeded with `hash(prompt)`, which Python salts anew in every process."""
    code = "from tests.test_plan import *; print(seed_of(0, PROMPT, 3))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert int(printed.stdout) == seed_of(0, PROMPT, 3)


def test_a_seed_is_of_what_is_asked_and_not_of_how() -> None:
    low, high = planned(), planned(draw={"height": 16, "width": 16, "threads": 1, "guidance_scale": 7.0})
    pairs = list(zip(low.units(low.shards()[0]), high.units(high.shards()[0]), strict=True))
    assert all(a.seed == b.seed and a.id != b.id for a, b in pairs)


def test_five_and_five_point_zero_are_the_same_setting() -> None:
    draw = {"height": 16, "width": 16, "threads": 1}
    whole, real = planned(draw={**draw, "guidance_scale": 5}), planned(draw={**draw, "guidance_scale": 5.0})
    assert whole.units(whole.shards()[0]) == real.units(real.shards()[0])
    assert digest({"a": 5}) == digest({"a": 5.0}) != digest({"a": 5.5})


def test_the_id_notices_everything_that_changes_a_pixel() -> None:
    base = planned()
    ids = {base.units(base.shards()[0])[0].id}
    for name, value in (
        ("weights", "v"),
        ("height", 32),
        ("num_inference_steps", 5),
        ("dtype", "bfloat16"),
        ("threads", 2),
        ("cache", "attention"),
        ("quantization", "float8"),
    ):
        other = replace(base, settings=replace(base.settings, **{name: value}))
        ids.add(other.units(other.shards()[0])[0].id)
    assert len(ids) == 8


def test_an_id_is_the_same_on_a_machine_with_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(processors: int) -> str:
        monkeypatch.setattr(os, "cpu_count", lambda: processors)
        chosen = study.load("emoji", ())
        base = plan(chosen, weights="w")
        return base.units(base.shards()[0])[0].id

    assert first(2) == first(64)


@given(
    n=st.integers(1, 90),
    grown=st.lists(st.integers(1, 90), max_size=3, unique=True),
    batch_size=st.sampled_from([1, 3, 16, 600]),
)
def test_the_shards_hold_every_unit_once_and_a_batch_always_its_places(
    n: int, grown: list[int], batch_size: int
) -> None:
    earlier = sorted(g for g in grown if g < n)
    draw = {"height": 16, "width": 16, "threads": 1, "batch_size": min(batch_size, 512)}
    one = planned(images_per_prompt=n, grown_from=earlier, draw=draw, prompt_sets=["emoji_occupations"])
    seen = [
        (shard, number, place, unit)
        for shard in one.shards()
        for number, b in one.batches(shard)
        for place, unit in enumerate(b)
    ]
    units = [unit.id for _, _, _, unit in seen if unit]
    assert len(units) == len(set(units)) == len(one)
    assert all(shard.stop - shard.start <= 512 for shard in one.shards())
    at_once = planned(images_per_prompt=n, draw=draw)
    places = {
        u.id: (number, place)
        for s in at_once.shards()
        for number, b in at_once.batches(s)
        for place, u in enumerate(b)
        if u
    }
    assert all(places[unit.id] == (number, place) for _, number, place, unit in seen if unit)


@pytest.mark.parametrize("arms", [["none", "none"], ["nonsense"], [{"suffix": {}}], [{"suffix": {"text": 3}}]])
def test_wrong_arms_are_refused(arms: list[object]) -> None:
    with pytest.raises(Exception, match="arms"):
        planned(arms=arms)


def test_a_negative_prompt_without_guidance_cannot_act() -> None:
    with pytest.raises(Exception, match="guidance_scale 1"):
        planned(arms=["none", {"negative": {"text": "x"}}], draw={"guidance_scale": 1.0})
