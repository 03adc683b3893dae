"""The line: which stage comes after which, for one run. The stages themselves share nothing but the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import prompt_sets
from pipeline import album, changes, effects, labels, mitigations, stages, store, summary, tables
from pipeline import generate as generation
from pipeline import study as studies
from pipeline.album import Album
from pipeline.energy import add_up, metered
from pipeline.errors import RunError
from pipeline.plan import Plan
from pipeline.store import Run
from pipeline.study import FolderStudy, Study
from pipeline.types import ALONE, Generator, Perceiver, Worker

Opened = tuple[Run, Study, Plan]
"""A run folder, its study and its plan."""
Readable = tuple[Run, Study | FolderStudy, Plan | Album]
"""The same of a run that can be perceived and estimated: one that was drawn, or a folder of pictures made elsewhere."""


def begin(chosen: Study, folder: Path) -> Opened:
    """A new run, or the one of the same study that is in the folder."""
    stages.plan_of(chosen)  # a model that is missing should leave no folder behind
    run, study = stages.open_run(chosen, folder)
    return run, study, stages.plan_of(study)


def resume(folder: Path) -> Opened:
    """A run that exists, to draw."""
    run, study = stages.load_run(folder)
    return run, study, stages.plan_of(study)


def reopen(folder: Path) -> Readable:
    """A run that exists, to read."""
    run = Run(folder)
    if run.study_file.is_file():
        study = studies.of_run(run.study_file)
        if isinstance(study, FolderStudy):
            return run, study, Album(study)
    return resume(folder)


def import_folder(
    folder: Path,
    *,
    concept: str | None,
    model: str | None,
    grid: bool,
    changes: Sequence[str] = (),
    out: Path | None = None,
) -> Readable:
    """The pictures of a folder as a run, or the rest of them where it was interrupted. Nothing is perceived yet."""
    files = album.look(folder, concept)
    study = album.study_of(folder, files, model=model, grid=grid, changes=changes)
    run = album.begin(study, out or Path("outputs") / study.name)
    album.keep(run, Album(study), folder, files, generation.environment())
    return run, study, Album(study)


def open_generator(study: Study, planned: Plan) -> Generator:
    """The model that draws."""
    return generation.open_generator(study.model.path, study.model.revision, planned.settings)


def open_perceiver(study: Study | FolderStudy) -> Perceiver:
    """The classifier that reads; what the estimates must know of it is written beside its perceptions."""
    within = _open_probe(study)
    if study.perceive.people == "keep_all":
        return within
    from classifiers.faces import OnePerson

    return OnePerson(within, study.perceive.people, name=study.perceive.name)


def _open_probe(study: Study | FolderStudy) -> Perceiver:
    from classifiers.attributes import ATTRIBUTES

    attributes = tuple(ATTRIBUTES[name] for name in study.perceive.attributes)
    if study.perceive.clip == "fake":
        from classifiers.fake import FakePerceiver

        return FakePerceiver(attributes, name=study.perceive.name)
    from classifiers.clip import ClipModel
    from classifiers.zero_shot import ZeroShot

    clip = ClipModel(study.perceive.clip, study.perceive.pretrained)
    return ZeroShot(clip, attributes, threshold=study.perceive.threshold, name=study.perceive.name)


def generate(opened: Opened, *, perceive: bool, worker: Worker = ALONE) -> None:
    """Draw what is missing; with `perceive`, read it on the way, and then what was drawn before.

    One of several workers does this for its own shards.
    """
    run, study, planned = opened
    mine = planned.shards(worker)
    before = stages.finished(run, mine)

    def reader() -> Perceiver:
        return noted(run, study, open_perceiver(study))

    with metered(run.folder, images=lambda: stages.finished(run, mine) - before):
        stages.draw(run, planned, lambda: open_generator(study, planned), reader if perceive else None, shards=mine)
        if perceive:
            stages.perceive(run, planned, reader, study.perceive.name, shards=mine)


def perceive(opened: Readable) -> None:
    """Read what has been drawn and not read."""
    run, study, planned = opened
    stages.perceive(run, planned, lambda: noted(run, study, open_perceiver(study)), study.perceive.name)


def noted(run: Run, study: Study | FolderStudy, perceiver: Perceiver) -> Perceiver:
    """Write down what the perceiver is."""
    store.write_json(
        run.perceptions(perceiver.name, "x").with_name("perceiver.json"),
        stages.describe(perceiver, same_domain=_same_domain(study)),
    )
    if len(study.arms) > 1:
        store.write_json(run.perceptions(perceiver.name, "x").with_name("concepts.json"), _concepts(study, perceiver))
    return perceiver


def _concepts(study: Study | FolderStudy, perceiver: Perceiver) -> dict[str, Any]:
    """The words of each concept with their embedding, by which it is seen whether a picture still shows it."""
    concepts = dict.fromkeys(prompt.concept for prompt in study.prompts())
    texts = [f"a photo of {prompt_sets.article(concept)} {concept}" for concept in concepts]
    vectors = perceiver.encode_texts(texts).astype(float).round(5).tolist()
    return {c: {"text": t, "embedding": v} for c, t, v in zip(concepts, texts, vectors, strict=True)}


def readings(study: Study, folder: Path) -> list[tables.Reading]:
    """What is known of a study's perceiver: from its run, if there is one, else by opening it."""
    described = Run(folder).perceptions(study.perceive.name, "x").with_name("perceiver.json")
    if described.is_file():
        return tables.readings(stages.read_json(described))
    return tables.readings(stages.describe(open_perceiver(study), same_domain=_same_domain(study)))


def read_by(run: Run, study: Study | FolderStudy) -> list[tables.Reading]:
    """What a run's perceiver reads, once it has."""
    path = run.perceptions(study.perceive.name, "x").with_name("perceiver.json")
    if not path.is_file():
        raise RunError(f"{run.folder}: is not perceived yet; run: typecast perceive {run.folder}")
    return tables.readings(stages.read_json(path))


def _same_domain(study: Study | FolderStudy) -> bool:
    """The embedded CLIP's errors were measured on emoji, and hold for those alone."""
    return study.perceive.clip != "embedded" or (isinstance(study, Study) and study.model.path == "embedded")


def estimate(opened: Readable) -> str:
    """`estimates.csv` and `summary.json`, and of a study with several arms `effects.csv`; returns the headline."""
    run, study, planned = opened
    add_up(run.folder)
    undrawn = len(planned) - stages.finished(run, planned.shards())
    if undrawn:
        stages.say(f"{undrawn:,} of {len(planned):,} images are not drawn yet: what follows is of the others")
    name = study.perceive.name
    attributes = read_by(run, study)
    counts = labels.counted(run, planned, name, attributes, tables.tally(run, planned, name, attributes))
    with tables.doubts(attributes, stages.say):
        shares = tables.corrected(planned, counts, attributes)
        rows = tables.estimate(planned, counts, attributes, shares)
        known = [tables.informed(reading, counts, tables.keys(planned)) for reading in attributes]
        found = summary.summary(planned, counts, known, shares)
        found["labels"] = labels.summary(run, planned, name, attributes)
        found["two_tones"] = tables.two_tones(run, planned, name, attributes)
        found["left_out"] = tables.left_out(run, planned, name, attributes)
        changed: list[dict[str, Any]] = []
        followed: list[dict[str, Any]] = []
        if isinstance(planned, Plan):
            read = effects.Read(
                run=run, planned=planned, perceiver=name, readings=attributes, counts=counts, shares=shares
            )
            changed, followed = effects.effects(read), effects.obedience(read)
            found["arms"] = effects.helped(read, followed)
    store.write_text(run.folder / "estimates.csv", tables.to_csv(rows))
    if changed:
        store.write_text(run.folder / "effects.csv", tables.to_csv(changed, changes.COLUMNS))
    for arm in dict.fromkeys(row["arm"] for row in followed):
        own = [row for row in followed if row["arm"] == arm]
        store.write_text(run.folder / f"obedience-{arm}.csv", tables.to_csv(own, mitigations.OBEDIENCE))
    store.write_json(run.folder / "summary.json", found)
    return str(found["headline"])


def report(opened: Readable) -> Path:
    """The figures and the page."""
    from pipeline.report import write_report

    return write_report(opened[0].folder)


def status(opened: Readable) -> dict[str, Any]:
    """How far a run is, from the disk alone."""
    run, study, planned = opened
    return stages.status(run, planned, study.perceive.name)


def fetch(study: Study) -> None:
    """Download the models of a study."""
    generation.fetch(study.model.path, study.model.revision)
    open_perceiver(study)


def preview(study: Study, folder: Path) -> str:
    """What a run would do, for `--dry-run`. Loads no model."""
    planned = stages.plan_of(study)
    run = Run(folder)
    shards = planned.shards()
    done = sum(run.images(shard).exists() for shard in shards)
    first = planned.units(shards[0])[:5]
    lines = [
        f"study    {study.name}: {len(planned.prompts)} prompts x {study.images_per_prompt} images "
        f"x {len(planned.arms)} arms",
        f"model    {study.model.path}, {study.draw.num_inference_steps} steps, guidance {study.draw.guidance_scale:g}",
        f"images   {len(planned):,} in {len(shards)} shards, {done} of them finished in {folder}",
        f"perceive {', '.join(study.perceive.attributes)} with {study.perceive.name}",
        "against  " + ("; ".join(a.title for a in tables.references(planned)) or "no reference"),
        "first prompts:",
        *(f"  {unit.prompt_sent}   (seed {unit.seed})" for unit in first),
    ]
    return "\n".join(lines)
