"""The benchmark of drawing runs from end to end, on a CPU and with a few thousand weights."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import line
from scripts import bench_generate
from tests.conftest import fake_study


def test_the_small_benchmark_prints_every_rate_and_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_generate", "--small", "--images", "20"])
    bench_generate.main()
    said = capsys.readouterr().out
    for wanted in (
        r"small, 64 x 64, 2 steps, guidance 7\.5, on ",
        r"matrix products: [\d.]+ TFLOP/s",
        r"public loop, one image a call: [\d.]+ images/s",
        r"public loop, 10 of one prompt a call: [\d.]+ images/s, [\d.]+ of the first",
        r"ours, compile null: [\d.]+ images/s, [\d.]+ of the first \(to reach 4\), [\d.]+ of the second \(1\.5\)",
        r"ours, compile null: floor [\d.]+ images/s .* reached 0\.\d+ of it",
        r"drawn, perceived, encoded, written: [\d.]+ images/s, [\d.]+ of drawing alone \(0\.95\)",
        r"20 of 20 were made, in 1 shards, of which it takes 3 to tell",
    ):
        assert re.search(wanted, said), wanted


@pytest.mark.parametrize("batch", [16, 32])
def test_every_batch_of_the_line_is_full(tmp_path: Path, batch: int) -> None:
    """A place that is padded takes as long as one that is drawn."""
    asked = argparse.Namespace(model="small", size=64, steps=2, batch=batch, images=1536)
    bench_generate.save_pipeline(bench_generate.SHAPES["small"], tmp_path / "model", "cpu")
    _, _, planned = bench_generate.begin(tmp_path, asked, "cpu", None, tmp_path / "run")
    assert all(None not in each for shard in planned.shards() for _, each in planned.batches(shard))
    assert abs(len(planned) - 1536) <= 10 * batch


def test_the_operations_counted_are_those_of_the_real_network() -> None:
    """Stable Diffusion 1.5's UNet at 64 x 64 latents: 0.80 TFLOP a call (401.6 GMAC), parameters 859,520,964.

    Both are published with the model: the size on its card; the operations by many, here counted on the meta device.
    """
    import diffusers
    import torch

    with torch.device("meta"):
        network = diffusers.UNet2DConditionModel(sample_size=64, **bench_generate.SHAPES["sd15"].network)
        told = torch.empty(1, 4, 64, 64), torch.tensor(1), torch.empty(1, 77, 768)
    assert sum(weights.numel() for weights in network.parameters()) == 859_520_964
    assert bench_generate.flops(lambda: network(*told)) == pytest.approx(0.803e12, rel=0.02)


def test_a_pipeline_of_sdxl_s_kind_is_saved_and_draws(tmp_path: Path) -> None:
    """Two text encoders, sizes and crops beside the time: its shapes, with a few thousand weights."""
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    shapes = replace(
        bench_generate.SHAPES["sdxl"],
        network=bench_generate.SHAPES["sdxl"].network
        | {
            "block_out_channels": (32, 64, 64),
            "transformer_layers_per_block": 1,
            "attention_head_dim": (4, 8, 8),
            "cross_attention_dim": 64,
            "projection_class_embeddings_input_dim": 6 * 256 + 32,
        },
        texts=({**text, "projection_dim": 32}, {**text, "projection_dim": 32}),
        channels=(32, 32, 32, 32),
    )
    bench_generate.save_pipeline(shapes, tmp_path / "model", "cpu")
    draw = {"height": 64, "width": 64, "num_inference_steps": 2, "threads": 1, "batch_size": 2}
    _, chosen, planned = line.begin(
        fake_study(model={"path": str(tmp_path / "model")}, draw=draw, images_per_prompt=1), tmp_path / "run"
    )
    first = next(iter(planned.batches(planned.shards()[0])))[1]
    drawn = line.open_generator(chosen, planned).draw(first)
    assert [one.status for one in drawn if one] == ["made", "made"]


def test_sdxl_has_its_published_size() -> None:
    """2,567,463,684 parameters in the network."""
    import diffusers
    import torch

    with torch.device("meta"):
        network = diffusers.UNet2DConditionModel(sample_size=64, **bench_generate.SHAPES["sdxl"].network)
    assert sum(weights.numel() for weights in network.parameters()) == 2_567_463_684
