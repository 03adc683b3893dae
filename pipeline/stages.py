"""The stages that make and read images: plan -> image shards -> perception shards. Each continues from the disk."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.attributes import BY_DETECTOR, readable
from pipeline import checks, generate, mitigations, store, study
from pipeline.errors import ModelError, RunError
from pipeline.plan import Plan, Sharded, plan
from pipeline.progress import progress
from pipeline.store import Run
from pipeline.study import Study
from pipeline.types import (
    CANNOT_TELL,
    Batch,
    Drawn,
    Generator,
    ImageRecord,
    Intersection,
    Perceived,
    Perceiver,
    Pixels,
    Rereader,
    Shard,
    WorkUnit,
)


def open_run(wanted: Study, folder: Path) -> tuple[Run, Study]:
    """The run folder of a study: a new one, or one that the same study began.

    `images_per_prompt` may have grown and arms may have been appended since; any other difference is an
    error that names the keys, once an image is drawn or while somebody draws.
    """
    run = Run(folder)
    new = not run.study_file.exists()
    if not new:
        store.sweep(folder)
    began, wanted = asked(run, wanted)
    if wanted == began:
        return run, began
    for arm in wanted.rewriters():
        if isinstance(arm, mitigations.Target):
            concepts = [prompt.concept for prompt in wanted.prompts()]
            for doubt in arm.doubts(concepts, wanted.model.path, wanted.draw.guidance_scale):
                say(doubt)
    ready = wanted.prepared()
    if new:  # of several processes that begin at one moment one writes the study, and the others go on from it
        first = store.write_first(run.study_file, study.dump(ready))
        return (run, ready) if first else open_run(wanted, folder)
    if began is None:
        asked(run, ready)  # once more, for the rewrites of a chat model have taken their time
    store.write_text(run.study_file, study.dump(ready))
    return run, ready


def asked(run: Run, wanted: Study) -> tuple[Study | None, Study]:
    """The study that a run folder goes on from, if there is one, and the one to go on with, or a `RunError`, as `open_run`
    has it. Writes nothing of the run."""
    # looked for before the study, which is written first: what another process writes meanwhile is not taken for foreign
    others = run.folder.is_dir() and any(not path.name.startswith(".") for path in run.folder.iterdir())
    if run.study_file.exists():
        began = load_run(run.folder)[1]
        try:
            arms = [*map(mitigations.remembered, wanted.arms, began.arms), *wanted.arms[len(began.arms) :]]
            return began, _continued(began, wanted.model_copy(update={"arms": tuple(arms)}), run)
        except RunError as error:
            if not _free(run):
                raise
            if held := run.held:
                raise RunError(f"{error}; or, {held}") from None
    elif others:
        raise RunError(f"{run.folder}: is not empty and holds no study.yaml; name another folder with --out")
    return None, wanted


def _free(run: Run) -> bool:
    """Has nothing been drawn here, and does nobody draw?"""
    with store.locked(run.lock, alone=True) as alone:
        return alone and not any(run.folder.glob("images/*.parquet"))


@contextlib.contextmanager
def drawing(run: Run, mine: Study) -> Iterator[Callable[[], None]]:
    """Hold a run folder for a study that is drawn: meanwhile it is not given to another one.

    Gives what is to be called before a shard is written, for a file system without locks: a `RunError` if the folder is
    another study's by now. One that has grown is the same.
    """
    known = study.dump(mine)

    def still_mine() -> None:
        nonlocal known
        text = run.study_file.read_text(encoding="utf-8")
        if text == known:
            return
        try:
            _continued(mine, load_run(run.folder)[1], run)
        except RunError:
            raise RunError(
                f"{run.folder}: another study has begun here since, and nothing more is drawn of this one; name another "
                "folder with --out"
            ) from None
        known = text

    with store.locked(run.lock):
        still_mine()
        yield still_mine


def load_run(folder: Path) -> tuple[Run, Study]:
    """A run folder that exists, and its study."""
    run = Run(folder)
    if not run.study_file.is_file():
        raise RunError(f"{folder}: no run here (no study.yaml); make one with: typecast run STUDY --out {folder}")
    return run, study.parse(checks.read_yaml(run.study_file), where=str(run.study_file))


def _continued(began: Study, wanted: Study, run: Run) -> Study:
    """The study to go on with, in a folder where `began` was drawn."""
    different = study.differences(
        began, wanted, {"images_per_prompt", "arms", "grown_from", "description", "prompt_sets"}
    )
    there, here = began.prompts(), wanted.prompts()  # a description may change, and how the file is written
    if there != here:
        sets = [[*dict.fromkeys(prompt.prompt_set for prompt in prompts)] for prompts in (there, here)]
        both = {*there} & {*here}
        apart = [(p, where) for where, asked in (("there", there), ("here", here)) for p in asked if p not in both]
        if sets[0] != sets[1]:
            different.append(f"prompt_sets is {sets[0]} there and {sets[1]} here")
        elif apart:
            prompt, where = apart[-1]
            different.append(f"prompt_sets: {prompt.prompt_set}: {prompt.text!r} is asked only {where}")
        else:
            different.append("prompt_sets: the prompts are in another order")
    if wanted.arms[: len(began.arms)] != began.arms:
        different.append(f"arms are {list(began.arms)} there; new ones can only be appended")
    if wanted.images_per_prompt < began.images_per_prompt:
        different.append(f"images_per_prompt is {began.images_per_prompt} there and can only grow")
    if different:
        raise RunError(f"{run.folder}: holds another study: {'; '.join(different)}. Name another folder with --out")
    grown = began.grown_from
    if wanted.images_per_prompt > began.images_per_prompt:
        grown = (*grown, began.images_per_prompt)
    return wanted.model_copy(update={"grown_from": grown})


def plan_of(chosen: Study) -> Plan:
    """The plan of a study, for the weights that its model has today. Loads no model."""
    return plan(chosen, weights=generate.weights_digest(chosen.model.path, chosen.model.revision))


# -- what is done ------------------------------------------------------------------------------------


def say(message: str) -> None:
    """One line for the person who waits."""
    print(message, file=sys.stderr, flush=True)


def say_who_is_idle(shards: int, workers: int) -> None:
    """A shard is drawn by one worker: where there are fewer of them than workers, somebody waits for no work."""
    if shards < workers:
        counted = f"{shards} {'shard' if shards == 1 else 'shards'} for {workers} workers"
        say(f"{counted}: {workers - shards} will be idle; ask for {shards}, or for more images_per_prompt")


def drawn(run: Run, planned: Plan, shard: Shard) -> bool:
    """Is this image shard finished? One with a byte that is not as it was written is set aside, to be drawn again."""
    path = run.images(shard)
    if not path.exists():
        return False
    try:
        store.check(path)
        ids = run.read_images(shard, ["unit_id"])["unit_id"].to_pylist()
    except RunError as error:
        say(f"{error}; set aside as {store.set_aside(path).name}, and drawn again")
        return False
    return _as_planned(path, ids, planned.units(shard))


def _checked(label: str, shards: Sequence[Shard], done: Callable[[Shard], bool]) -> tuple[list[Shard], list[Shard]]:
    """The shards that are done, and those that are not: their files are read, which takes its time."""
    apart: tuple[list[Shard], list[Shard]] = ([], [])
    with progress(label, total=images_in(shards)) as advance:
        for shard in shards:
            apart[0 if done(shard) else 1].append(shard)
            advance(shard.stop - shard.start, "")
    return apart


def there(run: Run, planned: Plan, shard: Shard) -> bool:
    """The same for whoever only looks: no picture is read, and nothing is set aside."""
    path = run.images(shard)
    try:
        ids = run.read_images(shard, ["unit_id"])["unit_id"].to_pylist() if path.exists() else None
    except RunError:
        return False
    return ids is not None and _as_planned(path, ids, planned.units(shard))


def _as_planned(path: Path, ids: Sequence[str], units: Sequence[WorkUnit]) -> bool:
    if [*ids] != [unit.id for unit in units]:
        raise RunError(f"{path}: was drawn with other weights or settings than this study's; name another --out")
    return True


def images_in(shards: Iterable[Shard]) -> int:
    """The number of images that these shards hold, made or not."""
    return sum(shard.stop - shard.start for shard in shards)


def finished(run: Run, shards: Iterable[Shard]) -> int:
    """How many images of these shards have a row on the disk. Looks at names alone."""
    return images_in(shard for shard in shards if run.images(shard).exists())


def perceived(run: Run, perceiver: str, shard: Shard) -> bool:
    """Is this perception shard finished? One that cannot be read is set aside, and so is one that was made of other
    images: by a process that had read them before another one drew the failed ones again."""
    path = run.perceptions(perceiver, shard)
    if not path.exists():
        return False
    try:
        seen = run.read_perceptions(perceiver, shard)["embedding"].is_valid().to_pylist()
        there = run.read_images(shard, ["status"])["status"].to_pylist() if run.images(shard).exists() else None
        if there is not None and seen != [status == "made" for status in there]:
            raise RunError(f"{path}: is not of the images that are there now")
    except RunError as error:
        say(f"{error}; set aside as {store.set_aside(path).name}, and perceived again")
        return False
    return True


def weights_of(run: Run, planned: Sharded) -> str:
    """The digest of the weights that drew a run, empty where its files do not say; a `RunError` if they were several."""
    drew: dict[str, list[str]] = {}
    for shard in planned.shards():
        if run.images(shard).exists() and (weights := run.environment(shard).get("weights")):
            drew.setdefault(weights, []).append(shard.name)
    if len(drew) > 1:
        said = [f"{weights} drew {', '.join(names[:3])}{_more(len(names) - 3)}" for weights, names in drew.items()]
        raise RunError(
            f"{run.folder}: shards of different weights are mixed: {'; '.join(said)}. Delete the images of all weights but "
            "one and let the same command draw them where these are; or draw anew, in another folder, with a commit as "
            "model.revision"
        )
    return next(iter(drew), "")


def _more(n: int) -> str:
    return f" and {n} more" if n > 0 else ""


# -- drawing -----------------------------------------------------------------------------------------

ENCODERS = 4
"""Threads that encode pictures: one makes about 50 PNGs of 512 x 512 in a second."""
HOPELESS, TREND = 3, 16
"""Batches, and images in them, after which a model that has failed at every one is not asked again."""


@dataclass
class _ShardInWork:
    """What has been drawn of a shard: the pictures are being encoded in other threads."""

    shard: Shard
    units: list[tuple[Any, int, Drawn, float]] = field(default_factory=list)
    encoded: list[Future[tuple[bytes, str]] | None] = field(default_factory=list)
    seen: list[tuple[list[int], Callable[[], Perceived]]] = field(default_factory=list)


@dataclass
class _Luck:
    """Has anything come of the model yet? One that fails at every image is stopped after its first batches."""

    run: Run
    batches: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    had: bool = False

    def see(self, results: Sequence[Drawn]) -> None:
        """A `ModelError` if there was none so far, in `HOPELESS` batches and as many images as stand for a trend: in this
        process, nor in what others have put on the disk."""
        self.had = self.had or any(result.status != "failed" for result in results)
        if self.had:
            return
        self.batches += 1
        self.reasons.update(result.reason for result in results)
        failed = self.reasons.total()
        if self.batches >= HOPELESS and failed >= TREND:
            files = self.run.folder.glob("images/*.parquet")
            on_disk = (self.run.read_images(file.stem, ["status"])["status"].to_pylist() for file in files)
            self.had = any({*statuses} - {"failed"} for statuses in on_disk)
            if self.had:
                return
            (reason, n), *others = self.reasons.most_common()
            more = f" and {len(others)} other reasons" if others else ""
            raise ModelError(
                f"all of the first {failed} images failed, {n} of them with: {reason}{more}. Nothing of them is kept; put the "
                "model or its settings (draw.dtype, draw.height, draw.width) right, and the same command draws them"
            )


def draw(
    run: Run,
    planned: Plan,
    generator: Callable[[], Generator],
    perceiver: Callable[[], Perceiver] | None = None,
    *,
    shards: Sequence[Shard] | None = None,
    written: list[int] | None = None,
) -> None:
    """Draw every shard that is not on the disk, and perceive it on the way if a perceiver is given.

    Of `shards`, if they are given. The models are opened only if there is something to do. An image goes to the
    classifier as the pixels that are stored; it is encoded and written in threads while the next batch is drawn.
    To `written` is added how many images a shard has, once it is on the disk.
    """
    wanted = planned.shards() if shards is None else shards
    _, todo = _checked("checking", wanted, lambda shard: drawn(run, planned, shard))
    total, missing = images_in(wanted), images_in(todo)
    if not todo:
        return
    with drawing(run, planned.study) as still_mine:
        draws, sees = generator(), perceiver() if perceiver else None
        environment = _environment(planned)
        beside = getattr(draws, "device", "cpu") != "cpu"
        writing: Future[None] | None = None
        luck = _Luck(run)

        def write(work: _ShardInWork) -> None:
            still_mine()
            _write_shard(run, work, sees, environment, [] if written is None else written)

        with (
            ThreadPoolExecutor(1) as writer,
            ThreadPoolExecutor(1) as readers,
            ThreadPoolExecutor(ENCODERS) as encoders,
            progress("drawing", total=total, done=total - missing) as advance,
        ):
            for shard in todo:
                work = _ShardInWork(shard)
                for number, batch in planned.batches(shard):
                    luck.see(_draw_batch(work, number, batch, draws, encoders))
                    _perceive_batch(work, sees, readers, beside=beside)
                    advance(sum(unit is not None for unit in batch), "")
                if writing:
                    writing.result()
                writing = writer.submit(write, work)
            if writing:
                writing.result()


def _draw_batch(
    work: _ShardInWork,
    number: int,
    batch: Batch,
    draws: Generator,
    encoders: ThreadPoolExecutor,
) -> list[Drawn]:
    """Draw a batch and hand its pictures to the encoders; what came of each unit."""
    start = time.perf_counter()
    results = draws.draw(batch)
    pairs = [(unit, result) for unit, result in zip(batch, results, strict=True) if unit and result]
    seconds = (time.perf_counter() - start) / max(len(pairs), 1)
    for unit, result in pairs:
        work.units.append((unit, number, result, seconds))
        made = result.pixels is not None
        work.encoded.append(encoders.submit(_encoded, result.pixels) if made and result.pixels is not None else None)
    return [result for _, result in pairs]


def _perceive_batch(work: _ShardInWork, sees: Perceiver | None, readers: ThreadPoolExecutor, *, beside: bool) -> None:
    """Have the batch that was drawn last perceived: on a GPU in a thread, while the next is drawn.

    On a CPU here and now: another thread would bring a second team of torch's threads, and the two would wait for each
    other at full load.
    """
    if not sees or not work.units:
        return
    last = work.units[-1][1]
    rows = [(place, result) for place, (_, number, result, _) in enumerate(work.units) if number == last]
    made = [(place, result.pixels) for place, result in rows if result.pixels is not None]
    if made:
        pixels = [pixels for _, pixels in made]
        places = [place for place, _ in made]
        if beside:
            work.seen.append((places, readers.submit(sees.perceive, pixels).result))
        else:
            perceived = sees.perceive(pixels)
            work.seen.append((places, lambda: perceived))


def _told(result: Drawn) -> dict[str, Any]:
    """What is recorded of a result, beside its pixels."""
    return {name: value for name, value in result._asdict().items() if name != "pixels"}


def _environment(planned: Plan) -> dict[str, str]:
    """Where a shard is drawn, and by which weights: on the hub, `main` may be another one tomorrow."""
    return generate.environment() | {"weights": planned.settings.weights}


def _encoded(pixels: Pixels) -> tuple[bytes, str]:
    return store.encode(pixels), store.sha256(pixels)


def _write_shard(
    run: Run, work: _ShardInWork, sees: Perceiver | None, environment: dict[str, Any], written: list[int]
) -> None:
    done = [future.result() if future else (None, "") for future in work.encoded]
    records = [
        ImageRecord(unit=unit, batch=number, sha256=sha, seconds=seconds, **_told(result))
        for (unit, number, result, seconds), (_, sha) in zip(work.units, done, strict=True)
    ]
    run.write_images(work.shard, records, [png for png, _ in done], environment)
    written.append(len(records))
    if sees:
        seen = [(rows, reading()) for rows, reading in work.seen]
        _write_seen(run, work.shard, [record.unit.id for record in records], seen, sees)


def retry(run: Run, planned: Plan, generator: Callable[[], Generator], *, written: list[int] | None = None) -> None:
    """Draw the failed units of finished shards again, each at its place; what was made or blocked stays as it is.

    The perceptions of a shard that changes are deleted first, so that none is ever beside another picture. To `written`
    is added how many images of a shard were drawn, once they are on the disk.
    """
    whole, _ = _checked("checking", planned.shards(), lambda shard: drawn(run, planned, shard))
    failed = {shard: _failed(run, shard) for shard in whole}
    todo = {shard: n for shard, n in failed.items() if n}
    if not todo:
        return
    with drawing(run, planned.study) as still_mine:
        draws = generator()
        with progress("drawing again", total=sum(todo.values())) as advance:
            for shard, n in todo.items():
                _retry_shard(run, planned, shard, draws, n, still_mine)
                if written is not None:
                    written.append(n)
                advance(n, "")


def _failed(run: Run, shard: Shard) -> int:
    return int(run.read_images(shard, ["status"])["status"].to_pylist().count("failed"))


def _retry_shard(
    run: Run, planned: Plan, shard: Shard, draws: Generator, n: int, still_mine: Callable[[], None]
) -> None:
    rows = {row["unit_id"]: row for row in run.read_images(shard).to_pylist()}
    for number, batch in planned.batches(shard):
        again = tuple(unit if unit and rows[unit.id]["status"] == "failed" else None for unit in batch)
        if not any(again):
            continue
        work = _ShardInWork(shard)
        with ThreadPoolExecutor(ENCODERS) as encoders:
            _draw_batch(work, number, again, draws, encoders)
        for (unit, _, result, seconds), future in zip(work.units, work.encoded, strict=True):
            png, sha = future.result() if future else (None, "")
            told = {"sha256": sha, "seconds": seconds, "image": png and {"bytes": png}}
            rows[unit.id] |= _told(result) | told
    units = planned.units(shard)
    kept = ("batch", "status", "reason", "sha256", "seconds", "tokens", "tokens_cut")
    records = [ImageRecord(unit=unit, **{name: rows[unit.id][name] for name in kept}) for unit in units]
    pngs = [rows[unit.id]["image"] and rows[unit.id]["image"]["bytes"] for unit in units]
    environment = run.environment(shard)
    environment["failed_drawn_again"] = str(int(environment.get("failed_drawn_again", 0)) + n)
    environment["drawn_again_in"] = [*environment.get("drawn_again_in", []), _environment(planned)]
    still_mine()
    run.write_images(shard, records, pngs, environment)


def fail(run: Run, planned: Plan, shard: Shard, reason: str) -> None:
    """Record every image of a shard as failed, unless it has been drawn after all."""
    if drawn(run, planned, shard):
        return
    records = [
        ImageRecord(unit=unit, batch=number, status="failed", reason=reason, sha256="", seconds=0.0)
        for number, batch in planned.batches(shard)
        for unit in batch
        if unit
    ]
    with drawing(run, planned.study):
        run.write_images(shard, records, [None] * len(records), _environment(planned))


# -- perceiving --------------------------------------------------------------------------------------


def perceive(
    run: Run,
    planned: Sharded,
    perceiver: Callable[[], Perceiver],
    name: str,
    embedded_by: str | None = None,
    *,
    shards: Sequence[Shard] | None = None,
) -> list[Shard]:
    """Perceive every image shard that is on the disk and has no perceptions by this perceiver.

    Of `shards`, if they are given. In the batches in which the images were drawn, so that what was perceived on the way
    is the same. Of a shard that `embedded_by`, another perceiver with the same CLIP and the same choice of people, has
    perceived, what was kept is used and no image is touched. A shard whose pictures are damaged is set aside, to be
    drawn again: those are given back.
    """
    wanted = planned.shards() if shards is None else shards
    ready = [shard for shard in wanted if run.images(shard).exists()]
    _, todo = _checked("checking perceptions", ready, lambda shard: perceived(run, name, shard))
    damaged: list[Shard] = []
    if not todo:
        return damaged
    sees = perceiver()
    total = images_in(ready)
    with (
        ThreadPoolExecutor() as decoders,
        progress("perceiving", total=total, done=total - images_in(todo)) as advance,
    ):
        for shard in todo:
            if embedded_by and run.perceptions(embedded_by, shard).exists():
                ids, again = _read_again(run, embedded_by, shard, sees)
                _write_seen(run, shard, ids, again, sees)
                advance(len(ids), "")
                continue
            try:
                table = run.read_images(shard, ["unit_id", "batch", "image"]).to_pydict()
            except RunError as error:
                say(f"{error}; set aside as {store.set_aside(run.images(shard)).name}, and must be made again")
                damaged.append(shard)
                continue
            batches: dict[int, list[int]] = {}
            for row, (number, image) in enumerate(zip(table["batch"], table["image"], strict=True)):
                if image is not None:
                    batches.setdefault(number, []).append(row)
            pngs = [[table["image"][row]["bytes"] for row in rows] for rows in batches.values()]
            seen = []
            for rows, images in zip(batches.values(), _decoded_ahead(pngs, decoders), strict=True):
                seen.append((rows, sees.perceive(images)))
                advance(len(rows), "")
            advance(len(table["batch"]) - sum(map(len, batches.values())), "")
            _write_seen(run, shard, table["unit_id"], seen, sees)
    return damaged


def _read_again(
    run: Run, embedded_by: str, shard: Shard, sees: Perceiver
) -> tuple[list[str], list[tuple[list[int], Perceived]]]:
    """What a perceiver says from what another one has kept: the embeddings, and of faces what was found."""
    from classifiers.faces import OnePerson

    ids, rows, embeddings = kept_embeddings(run, embedded_by, shard)
    if not rows:
        return ids, []
    if isinstance(sees, OnePerson):
        found = run.read_perceptions(embedded_by, shard, [a.name for a in BY_DETECTOR]).take(rows).to_pydict()
        return ids, [(rows, sees.from_kept(embeddings, found))]
    assert isinstance(sees, Rereader)  # as all that have no faces to look for
    return ids, [(rows, sees.from_embeddings(embeddings))]


def _decoded_ahead(batches: Sequence[Sequence[bytes]], decoders: ThreadPoolExecutor) -> Iterator[list[Pixels]]:
    """The images of each batch; those of the next are decoded in threads while this one is perceived."""
    coming: list[Iterator[Pixels]] = []
    for batch in batches:
        coming.append(decoders.map(store.decode, batch))
        if len(coming) > 1:
            yield [*coming.pop(0)]
    for images in coming:
        yield [*images]


def kept_embeddings(run: Run, perceiver: str, shard: Shard) -> tuple[list[str], list[int], npt.NDArray[np.float16]]:
    """The ids of a shard, the rows that were perceived, and their embeddings `(n, d)`."""
    table = run.read_perceptions(perceiver, shard, ["unit_id", "embedding"])
    column = table["embedding"].combine_chunks()
    rows = [row for row, there in enumerate(column.is_valid().to_pylist()) if there]
    flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
    return table["unit_id"].to_pylist(), rows, flat.reshape(len(rows), -1).astype(np.float16, copy=False)


def _write_seen(
    run: Run, shard: Shard, ids: Sequence[str], seen: Iterable[tuple[list[int], Perceived]], sees: Perceiver
) -> None:
    """One perception shard from the perceived parts of it, in the order of the units; what was not made is null."""
    parts = list(seen)
    width = parts[0][1].embeddings.shape[1] if parts else 1
    embeddings = np.full((len(ids), width), np.nan, np.float16)
    probabilities = {a.name: np.full((len(ids), len(a.levels)), np.nan, np.float32) for a in sees.attributes}
    decisions = {a.name: [CANNOT_TELL] * len(ids) for a in sees.attributes}
    for rows, part in parts:
        embeddings[rows] = part.embeddings
        for name in probabilities:
            probabilities[name][rows] = part.probabilities[name]
            for row, decision in zip(rows, part.decisions[name], strict=True):
                decisions[name][row] = decision
    run.write_perceptions(sees.name, shard, ids, Perceived(embeddings, probabilities, decisions), sees.attributes)


def describe(perceiver: Perceiver, *, same_domain: bool) -> dict[str, Any]:
    """What the estimates must know of a perceiver, without loading it again: `perceiver.json` in its folder.

    Its errors are known only for images of the kind that they were measured on (`same_domain`).
    """
    read = readable(perceiver.attributes)
    matrices = {a.name: perceiver.confusion(a.name) if same_domain else None for a in read}
    return {
        "name": perceiver.name,
        "attributes": {
            a.name: {"title": a.title, "levels": list(a.levels)}
            | ({"of": [part.name for part in a.of]} if isinstance(a, Intersection) else {})
            for a in read
        },
        "confusion": {name: None if matrix is None else matrix.tolist() for name, matrix in matrices.items()},
        "confusion_by_concept": {
            name: {concept: rows.tolist() for concept, rows in perceiver.confusion_by_concept(name).items()}
            for name, matrix in matrices.items()
            if matrix is not None
        },
    }


# -- status ------------------------------------------------------------------------------------------


def status(run: Run, planned: Sharded, perceiver: str) -> dict[str, Any]:
    """How far a run is, from the disk alone: counts of shards and images, and why images are missing."""
    shards = planned.shards()
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    weights: set[str] = set()
    unreadable, noted = [], 0
    for shard in shards:
        if not run.images(shard).exists():
            continue
        try:
            table = run.read_images(shard, ["status", "reason"]).to_pydict()
            weights |= {run.environment(shard).get("weights", "")} - {""}
        except RunError:
            unreadable.append(run.images(shard).name)
            continue
        statuses.update(table["status"])
        noted += sum(s == "made" and r != "" for s, r in zip(table["status"], table["reason"], strict=True))
        reasons.update(f"{s}: {r}" for s, r in zip(table["status"], table["reason"], strict=True) if s != "made")
    estimates = run.folder / "summary.json"
    estimated_of = _total(estimates) if estimates.is_file() else 0
    return {
        "run": str(run.folder),
        "images": len(planned),
        **{name: statuses.get(name, 0) for name in ("made", "blocked", "failed")},
        "made_in_smaller_batches": noted,
        "weights": sorted(weights),
        "shards": len(shards),
        "shards_drawn": sum(run.images(shard).exists() for shard in shards),
        "shards_perceived": sum(run.perceptions(perceiver, shard).exists() for shard in shards),
        "estimated_of": estimated_of,
        "report": (run.folder / "report.html").exists(),
        "reasons": dict(reasons.most_common()),
        "unreadable": unreadable,
        "set_aside": sorted(p.name for p in run.folder.rglob("*.unreadable-*")),
    }


def _total(summary: Path) -> int:
    """Of how many images a summary is."""
    try:
        return int(read_json(summary)["images"]["total"])
    except (KeyError, TypeError, ValueError, RunError):
        raise RunError(
            f"{summary}: is no summary of a run; make it again with: typecast estimate {summary.parent}"
        ) from None


def read_json(path: Path) -> Any:
    """A JSON file of a run."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
