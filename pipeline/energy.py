"""What a stage used: kWh and gCO2e by codecarbon, offline, and how the number was obtained."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import InputError

COUNTRY = "TYPECAST_COUNTRY"
"""Environment variable with the ISO code of the country whose electricity it is, such as `DEU`."""

SESSIONS = "energy"
"""The folder in a run with a file per session."""
NOT_MEASURED = "not measured: codecarbon could not begin here"
"""How a session says that what it used is not known; it is in no sum."""


@contextmanager
def metered(folder: Path, *, images: Callable[[], int], shared: bool = False) -> Iterator[None]:
    """Measure a block as one session of the run in `folder`; `images` says at its end how many were made.

    A run that was continued, or that several processes work on, has several sessions, each a file of its own.
    The mean carbon intensity of a country's grid is an assumption; the country is the United States unless
    `TYPECAST_COUNTRY` says another. Of the GPUs only the one that this process draws on counts; a part of one (MIG) has no
    meter of its own, and the entry says that it is not measured. Without the
    processor's own meter, codecarbon guesses its power from this process's load, and the entry says so; so it does
    where the machine is `shared` with other workers, for that meter would tell each of them what all use.
    """
    from codecarbon import OfflineEmissionsTracker

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    country = _country()
    tracker = OfflineEmissionsTracker(
        country_iso_code=country,
        save_to_file=False,
        log_level="critical",
        allow_multiple_runs=True,
        tracking_mode="process",
        measure_power_secs=10,
        gpu_ids=[_gpu()],
        force_mode_cpu_load=shared,
    )
    start, began = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    tracker.start()
    try:
        yield
    finally:
        grams = tracker.stop()
        # codecarbon logs its own errors and goes on: where it could not begin, there is nothing to ask it for.
        data = getattr(tracker, "final_emissions_data", None)
        session = {
            "began": began,
            "seconds": round(time.monotonic() - start, 1),
            "images": images(),
            "kwh": float(data.energy_consumed) if data else None,
            "gco2e": 1000 * float(grams or 0.0) if data else None,
            "gpu_kwh": float(data.gpu_energy) if data else None,
            "how": _how(tracker, data) if data else NOT_MEASURED,
            "country": country,
        }
        store.write_json(folder / SESSIONS / f"{uuid.uuid4().hex}.json", session)
        add_up(folder)


def _gpu() -> str:
    """The number of the GPU that this process draws on, as its meter counts them; `none`, for no id at all would mean all.

    codecarbon itself cuts the `G` off a name like `GPU-4e81…`, and finds none that begins so.
    """
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if name.isdecimal() or not name:
        return name or "none"
    from codecarbon.core.gpu import AllGPUDevices

    known = AllGPUDevices().get_gpu_static_info()
    return next((str(gpu["gpu_index"]) for gpu in known if gpu["uuid"].startswith(name)), "none")


def _country() -> str:
    """The country whose grid is assumed; one that codecarbon does not know would be given the world's mean in silence."""
    import importlib.resources

    asked = (os.environ.get(COUNTRY, "").strip() or "USA").upper()
    known = json.loads(
        (importlib.resources.files("codecarbon") / "data/private_infra/global_energy_mix.json").read_text(
            encoding="utf-8"
        )
    )
    if asked not in known:
        raise InputError(
            f"{COUNTRY}: {asked!r} is no ISO code of a country whose grid is known, such as USA, DEU or IND"
        )
    return asked


def _how(tracker: Any, data: Any) -> str:
    """Measured, or guessed: by the classes that codecarbon chose for this machine."""
    modes = {str(getattr(h, "_mode", "")) for h in getattr(tracker, "_hardware", [])}
    own_meter = bool(modes & {"intel_rapl", "intel_power_gadget"})
    if float(data.gpu_energy) > 0:
        processor = (
            "processor too" if own_meter else "the processor's power is a guess from its load and its rated power"
        )
        return f"GPU measured by its own meter; {processor}, memory from its size"
    torch = sys.modules.get("torch")  # what did not load it did not draw on a GPU
    missed = "; the GPU is not measured, and what it used is in no sum" if torch and torch.cuda.is_initialized() else ""
    if own_meter:
        return f"processor measured by its own meter; memory from its size{missed}"
    return f"a guess: the processor's power from its load and its rated power, memory from its size{missed}"


def add_up(folder: Path) -> None:
    """Write `energy.json` from the sessions that are on the disk. Processes that end together may miss each other."""
    sessions = []
    for file in (folder / SESSIONS).glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            sessions.append(json.loads(file.read_text(encoding="utf-8")))
    if not sessions:
        return
    sessions.sort(key=lambda session: str(session["began"]))
    measured = [session for session in sessions if session["kwh"] is not None]
    kwh, images = sum(s["kwh"] for s in measured), sum(s["images"] for s in measured)
    store.write_json(
        folder / "energy.json",
        {
            "kwh": kwh if measured else None,
            "gco2e": sum(s["gco2e"] for s in measured) if measured else None,
            "gpu_seconds": sum(s["seconds"] for s in measured if s["gpu_kwh"] > 0),
            "images_per_kwh": images / kwh if images and kwh else None,
            "how": "; ".join(sorted({s["how"] for s in sessions})),
            "assumptions": "mean grid intensity of " + ", ".join(sorted({s["country"] for s in sessions})),
            "sessions": sessions,
        },
    )
