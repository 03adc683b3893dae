"""The benchmark of reading runs to its end: all four loops read the same files, and Typecast stands beside each."""

from __future__ import annotations

import re

import pytest

from classifiers.clip import ClipModel
from scripts import bench_perceive

LOOPS = ("one by one", "batched, per attribute", "batched, in one pass", "Typecast")


def test_its_smallest_form_prints_a_rate_for_each_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encode, encoded = ClipModel.encode_images, []
    monkeypatch.setattr(ClipModel, "encode_images", lambda *told: encoded.append(len(told[1])) or encode(*told))
    monkeypatch.setattr(
        "sys.argv", ["bench_perceive", "--images", "4", "--side", "32", "--workers", "0", "--rounds", "1"]
    )
    bench_perceive.main()
    printed = capsys.readouterr().out
    assert "embedded, 4 PNG files of 32 pixels" in printed
    for loop in LOOPS:
        rate, times, *_ = re.findall(r"[\d.]+", next(row for row in printed.splitlines() if row.startswith(loop))[24:])
        assert float(rate) > 0 and float(times) > 0
    assert encoded == [1, 4]  # to warm up, and each image once
