"""A folder of pictures made elsewhere -> image shards: from there on they are perceived and estimated like our own.

A file that cannot be read is a row with the reason. Nothing is read that lies outside of the folder.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import prompt_sets
from pipeline import checks, store, study
from pipeline.errors import InputError, RunError
from pipeline.pictures import bytes_of, decoded, files_below, quarters
from pipeline.progress import progress
from pipeline.store import Run
from pipeline.study import FolderStudy
from pipeline.types import ImageRecord, Pixels, Prompt, Shard, WorkUnit, digest

SHARD_SIZE = 64
"""Pictures a shard holds at most, fewer than of drawn ones: they may be large. A multiple of four: no grid is in two."""
BATCH = 16
"""Pictures that are read together by the classifier."""
OUTSIDE = "a link that leads out of the folder"
NO_NAME = "its name is not UTF-8: rename it"
NO_FILE = "no file: a link to nothing or to a folder, or something else that is not read"


@dataclass(frozen=True)
class Unchanged:
    """The one arm: what was asked is not known, and nothing is rewritten."""

    name: str = "none"


@dataclass(frozen=True)
class Album:
    """What a folder's study holds, in the shape that the stages ask for (`pipeline.plan.Sharded`)."""

    study: FolderStudy

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """One for each concept."""
        return self.study.prompts()

    @property
    def arms(self) -> tuple[Unchanged, ...]:
        """One."""
        return (Unchanged(),)

    @property
    def references(self) -> tuple[prompt_sets.Reference, ...]:
        """The tables that the study names."""
        return tuple(prompt_sets.load_reference(r.table, r.year) for r in self.study.reference)

    @property
    def made_with(self) -> dict[str, Any]:
        """Who made them; how is not known."""
        return {"model": self.study.model, "guidance_scale": None}

    def model_of(self, arm: str) -> str:
        """Who made them."""
        return self.study.model

    def __len__(self) -> int:
        """Pictures: four of a file that is a grid."""
        return self.study.files * (4 if self.study.grid else 1)

    def shards(self) -> list[Shard]:
        """Consecutive pictures, in the order of the files' names."""
        starts = range(0, len(self), SHARD_SIZE)
        return [Shard(arm="none", start=start, stop=min(start + SHARD_SIZE, len(self))) for start in starts]


# -- the folder --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of the folder."""

    name: str
    """Its path inside of the folder, with forward slashes."""
    concept: str
    sha256: str
    """Of its bytes; empty where they may not or cannot be read."""
    reason: str = ""
    """Why they are not."""


def look(folder: Path, concept: str | None, *, runs: Path) -> list[File]:
    """Every file of a folder and the folders in it, by name; those whose name begins with a dot are no pictures, nor is
    what Typecast wrote there: `runs` is the folder of this run or of all.

    Without a `concept`, the sub-folder says it: `software_engineer/1.png` is a software engineer, as is every picture
    with `software_engineer` as the `concept`. `nurse/` and `Nurse/`
    are one concept, named as the first.
    """
    home, ours = folder.resolve(), runs.parent.resolve() / runs.name
    paths = sorted(files_below(folder), key=lambda p: p.relative_to(folder).as_posix())
    if not home.is_relative_to(ours):
        paths = [path for path in paths if not (home / path.relative_to(folder)).is_relative_to(ours)]
    if not paths:
        raise InputError(f"{folder}: holds no file; give a folder of pictures")
    loose = [p.name for p in paths if p.parent == folder]
    if concept is None and loose:
        some = ", ".join(loose[:3]) + (f" and {len(loose) - 3} more" if len(loose) > 3 else "")
        raise InputError(
            f"{folder}: {some}: in no sub-folder, so nothing says what they show. Give it for all with --concept "
            "(such as: --concept ceo), or put the pictures of each concept into a sub-folder with its name"
        )
    files = [_file(path, folder, home, concept) for path in paths]
    for file in files:
        if not file.concept:
            raise InputError(f"{folder / file.name.partition('/')[0]}: its name is no concept; rename it")
    spelled: dict[str, str] = {}
    return [replace(file, concept=spelled.setdefault(file.concept.casefold(), file.concept)) for file in files]


def _file(path: Path, folder: Path, home: Path, concept: str | None) -> File:
    name = path.relative_to(folder).as_posix()
    told = os.fsencode(name).decode("utf-8", "backslashreplace")
    concept = re.sub(r"[_\s]+", " ", concept or told.partition("/")[0]).strip()
    if told != name:
        return File(name=told, concept=concept, sha256="", reason=NO_NAME)
    if not Path(os.path.realpath(path)).is_relative_to(home):  # `resolve` raises where links go round in a circle
        return File(name=name, concept=concept, sha256="", reason=OUTSIDE)
    try:
        if not path.is_file():
            return File(name=name, concept=concept, sha256="", reason=NO_FILE)
        with path.open("rb") as file:
            return File(name=name, concept=concept, sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        return File(name=name, concept=concept, sha256="", reason=f"cannot be read: {error.strerror}")


def study_of(
    folder: Path, files: Sequence[File], *, model: str | None, grid: bool, changes: Sequence[str]
) -> FolderStudy:
    """The study of a folder, with `KEY=VALUE` changes by dotted path."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "pictures"
    raw: dict[str, Any] = {
        "name": name,
        "model": model or name,
        "pictures": folder.as_posix(),
        "files": len(files),
        "sha256": digest([[file.name, file.concept, file.sha256] for file in files]),
        "concepts": list(dict.fromkeys(file.concept for file in files)),
        "grid": grid,
    }
    for change in changes:
        if (key := change.partition("=")[0].partition(".")[0]) in ("pictures", "files", "sha256", "concepts"):
            raise InputError(f"--set {change}: {key} is what is in the folder; give another folder, or --concept")
        checks.set_by_path(raw, change)
    return study.parse_folder(raw, where=folder.as_posix())


# -- the shards --------------------------------------------------------------------------------------


def begins(run: Run, chosen: FolderStudy) -> bool:
    """Is a study to be written into a run folder? A new one is, and one that is read otherwise while nothing is read yet;
    not one of the same pictures, which goes on. Any other is a `RunError` that names the keys."""
    if run.study_file.exists():
        began = study.of_run(run.study_file)
        if not isinstance(began, FolderStudy):
            raise RunError(f"{run.folder}: holds a study of another kind; name another folder with --out")
        may_change = {"pictures"} | (set() if any(run.folder.glob("perceptions/*/*.parquet")) else {"perceive"})
        if different := study.differences(began, chosen, may_change):
            raise RunError(
                f"{run.folder}: holds other pictures or another study: {'; '.join(different)}. Name another folder with "
                "--out"
            )
        return began.perceive != chosen.perceive
    if run.folder.is_dir() and any(not path.name.startswith(".") for path in run.folder.iterdir()):
        raise RunError(f"{run.folder}: is not empty and holds no study.yaml; name another folder with --out")
    return True


def keep(run: Run, album: Album, folder: Path, files: Sequence[File], environment: dict[str, Any]) -> None:
    """Every shard that is not on the disk, a row per picture; each file is decoded once."""
    parts = 4 if album.study.grid else 1
    todo = [shard for shard in album.shards() if not store.finished(run.images(shard))]
    missing = sum(s.stop - s.start for s in todo)
    samples = _numbered(files)
    with progress("importing", total=len(album), done=len(album) - missing, unit="pictures") as advance:
        for shard in todo:
            records: list[ImageRecord] = []
            pngs: list[bytes | None] = []
            for place in range(shard.start // parts, shard.stop // parts):
                for part, found in enumerate(_pictures(folder, files[place], grid=album.study.grid)):
                    unit = _unit(album, files[place], samples[place] * parts + part, part)
                    records.append(_record(unit, files[place], (place * parts + part) // BATCH, found))
                    pngs.append(None if isinstance(found, str) else store.encode(found))
                    advance(1, "")
            run.write_images(shard, records, pngs, environment)


def _numbered(files: Sequence[File]) -> list[int]:
    """The number of each file within its concept."""
    seen: Counter[str] = Counter()
    numbers = []
    for file in files:
        numbers.append(seen[file.concept])
        seen[file.concept] += 1
    return numbers


def _record(unit: WorkUnit, file: File, batch: int, found: Pixels | str) -> ImageRecord:
    if isinstance(found, str):
        return ImageRecord(
            unit=unit, batch=batch, status="failed", reason=found, sha256="", seconds=0.0, file=file.name
        )
    return ImageRecord(
        unit=unit, batch=batch, status="made", reason="", sha256=store.sha256(found), seconds=0.0, file=file.name
    )


def _pictures(folder: Path, file: File, *, grid: bool) -> Sequence[Pixels | str]:
    """What is in a file: one picture, or four of a grid; or the reason, once for each."""
    found = file.reason or _content(folder, file)
    if not grid:
        return (found,)
    if isinstance(found, str):
        return (found,) * 4
    return quarters(found) if min(found.shape[:2]) > 1 else ("too small to be a grid",) * 4


def _content(folder: Path, file: File) -> Pixels | str:
    content = bytes_of(folder / file.name)
    if isinstance(content, str):
        return content
    if hashlib.sha256(content).hexdigest() != file.sha256:
        return "was changed while it was read"
    return decoded(content)


def _unit(album: Album, file: File, sample: int, part: int) -> WorkUnit:
    """A picture is known by its file and its place in the grid: nothing of how it was made is known."""
    prompt = next(prompt for prompt in album.prompts if prompt.concept == file.concept)
    what = ["picture", file.name, file.sha256, part]
    return WorkUnit(
        id=digest(what)[:24], prompt=prompt, arm="none", prompt_sent="", negative_prompt="", sample=sample, seed=0
    )


def failures(run: Run, album: Album) -> list[tuple[str, str]]:
    """Files that gave no picture, with the reason."""
    found: dict[str, str] = {}  # of the four of a grid, one line
    for shard in album.shards():
        rows = run.read_images(shard, ["file", "status", "reason"]).to_pylist()
        found |= {row["file"]: row["reason"] for row in rows if row["status"] != "made"}
    return list(found.items())


def repeated(run: Run, album: Album) -> int:
    """Pictures that are the same as an earlier one, pixel by pixel. They are counted: nobody said that they are one."""
    seen: Counter[str] = Counter()
    for shard in album.shards():
        seen.update(sha for sha in run.read_images(shard, ["sha256"])["sha256"].to_pylist() if sha)
    return seen.total() - len(seen)
