"""The soak, for seconds: its account must hold under faults, and must see what is lost and what is changed."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.line import Opened
from scripts import soak


@pytest.mark.slow
def test_a_short_soak_loses_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["soak", "--minutes", "0.3", "--images", "3000", "--faults", "6"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        soak.main()
    assert ended.value.code == 0
    assert re.search(r"3,000 images, \d+ faults .*: 0 lost, 0 doubled or changed", capsys.readouterr().out)


def test_a_fault_damages_a_finished_file(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    run, _, planned = opened = drawn(images_per_prompt=5)
    whole = soak.pixels(opened)
    assert whole.total() == len(planned) and not soak.damage(tmp_path / "nothing", "cut off", random.Random(0))
    content = run.images(planned.shards()[0]).read_bytes()
    for seen in run.folder.glob("perceptions/*/*.parquet"):
        seen.unlink()  # one of these could be the victim
    for kind in ("cut off", "flipped bit"):
        assert soak.damage(run.folder, kind, random.Random(0))
        assert run.images(planned.shards()[0]).read_bytes() != content
        run.images(planned.shards()[0]).write_bytes(content)
    run.images("a-copy").write_bytes(content)
    assert (soak.pixels(opened) - whole).total() == len(planned)
