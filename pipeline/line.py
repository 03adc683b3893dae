"""The line: which stage comes after which, for one run. The stages themselves share nothing but the disk."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import prompt_sets
from classifiers import probe
from pipeline import (
    album,
    changes,
    checks,
    effects,
    labels,
    mitigations,
    stages,
    store,
    summary,
    tables,
    wordings,
)
from pipeline import generate as generation
from pipeline import study as studies
from pipeline.album import Album
from pipeline.energy import add_up, metered
from pipeline.errors import InputError, RunError
from pipeline.estimates import Shares
from pipeline.plan import Plan, plan
from pipeline.store import Run
from pipeline.study import ZERO_SHOT, FolderStudy, ImportStudy, Perceive, Study
from pipeline.types import ALONE, Attribute, Generator, Perceiver, Rereader, Worker

EMBEDDED_PROBE = Path(__file__).parent / "embedded" / "probe"
"""A linear probe on the embedded CLIP, fitted to the emoji world."""

Opened = tuple[Run, Study, Plan]
"""A run folder, its study and its plan."""
Readable = tuple[Run, Study | FolderStudy, Plan | Album]
"""The same of a run that can be perceived and estimated: one that was drawn, or a folder of pictures made elsewhere."""


def begin(chosen: Study, folder: Path) -> Opened:
    """A new run, or the one of the same study that is in the folder. A model that there is not leaves no folder behind."""
    weights = stages.plan_of(chosen).settings.weights
    if not Run(folder).study_file.exists() and chosen.perceive.clip != "fake":
        _asked_probe(chosen.perceive)
    run, study = stages.open_run(chosen, folder)
    return run, study, plan(study, weights=weights)


def look(chosen: Study, folder: Path) -> Opened:
    """What `begin` would give, or refuse. Nothing is written."""
    run = Run(folder)
    study = stages.asked(run, chosen)[1]
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
        if isinstance(study, ImportStudy):
            raise RunError(
                f"{folder}: is of {study.data}, which was made elsewhere, and there is nothing to draw or to read; its page is "
                f"{folder / 'report.html'}. To estimate it again, run typecast import with the study it came from"
            )
    run, drawn = stages.load_run(folder)
    return run, drawn, plan(drawn, weights="")  # what is read does not depend on the weights, which need not be here


def import_folder(
    folder: Path,
    *,
    concept: str | None,
    model: str | None,
    grid: bool,
    changes: Sequence[str] = (),
    out: Path | None = None,
) -> Readable:
    """The pictures of a folder as a run, or the rest of them where it was interrupted. Nothing is perceived yet.

    A perceiver that there is not is refused before anything is written.
    """
    files = album.look(folder, concept, runs=out or Path("outputs"))
    study = album.study_of(folder, files, model=model, grid=grid, changes=changes)
    run = Run(out or Path("outputs") / study.name)
    if album.begins(run, study):
        if study.perceive.clip != "fake":
            _asked_probe(study.perceive)
        store.write_text(run.study_file, studies.dump(study))
    album.keep(run, Album(study), folder, files, generation.environment())
    return run, study, Album(study)


def open_generator(study: Study, planned: Plan) -> Generator:
    """The model that draws."""
    generator = generation.open_generator(study.model.path, study.model.revision, planned.settings)
    if getattr(generator, "device", "cpu") != "cpu" and study.draw.dtype == "float32":
        stages.say(
            "draw.dtype is float32, which leaves most of what this GPU's tensor cores can do idle; bfloat16 is quicker, and "
            "a study of its own (name another --out)"
        )
    return generator


def open_perceiver(study: Study | FolderStudy) -> Perceiver:
    """The classifier that reads; what the estimates must know of it is written beside its perceptions."""
    within = open_within(study)
    if study.perceive.people == "keep_all":
        return within
    from classifiers.faces import OnePerson

    return OnePerson(within, study.perceive.people, name=study.perceive.name)


def open_within(study: Study | FolderStudy) -> Rereader:
    """The same, whoever is in the picture."""
    from classifiers.attributes import ATTRIBUTES

    attributes = tuple(ATTRIBUTES[name] for name in study.perceive.attributes)
    if study.perceive.clip == "fake":
        from classifiers.fake import FakePerceiver

        return FakePerceiver(attributes, name=study.perceive.name)
    return open_probe(study.perceive, attributes)


def _asked_probe(asked: Perceive) -> Path | None:
    """The folder of a fitted probe, if a study asks for one. A probe or a CLIP that there is not is refused, as is one that
    does not read what is asked; none is loaded."""
    from classifiers import clip
    from classifiers.attributes import ATTRIBUTES

    folder = probe_folder(asked.probe)
    if folder:
        probe.described_for(folder, [ATTRIBUTES[name] for name in asked.attributes])
    clip.source(asked.clip, asked.pretrained)
    return folder


def open_probe(asked: Perceive, attributes: Sequence[Attribute]) -> probe.Probe:
    """The probe that a study asks for, on its CLIP. A folder that is none is refused before a CLIP is loaded."""
    from classifiers.clip import ClipModel
    from classifiers.zero_shot import ZeroShot

    folder = _asked_probe(asked)
    clip = ClipModel(asked.clip, asked.pretrained)
    if folder:
        return probe.load(folder, clip, attributes, name=asked.name)
    assert asked.threshold is not None
    return ZeroShot(clip, attributes, threshold=asked.threshold, name=asked.name)


def named_probe(name: str, pictures: str, clip: str, pretrained: str | None) -> tuple[probe.Probe, Path | None]:
    """A probe to measure on labelled pictures, with all that it reads of what they are labelled for, and its folder.

    A fitted probe knows its CLIP. One that asks in words is measured at the threshold of a study.
    """
    from classifiers.attributes import ATTRIBUTES
    from classifiers.labelled import load

    folder, known = probe_folder(name), load(pictures).attributes
    if folder:
        described = probe.read_description(folder)
        clip, pretrained = described["clip"], described["pretrained"]
        known = tuple(attribute for attribute in known if attribute in described["attributes"])
        if not known:
            raise InputError(
                f"{pictures}: is labelled for nothing that {folder} reads: {', '.join(described['attributes'])}"
            )
    asked = Perceive(clip=clip, pretrained=pretrained, probe=name, attributes=known)
    return open_probe(asked, [ATTRIBUTES[attribute] for attribute in known]), folder


def probe_folder(name: str) -> Path | None:
    """The folder of a fitted probe; `None` of the one that needs none."""
    return None if name == ZERO_SHOT else EMBEDDED_PROBE if name == "embedded" else Path(name).expanduser()


def retry(opened: Opened) -> None:
    """Draw again what has failed; it is perceived by the next `generate` or `perceive`."""
    run, study, planned = opened
    written: list[int] = []
    with metered(run.folder, images=lambda: sum(written)):
        stages.retry(run, planned, lambda: open_generator(study, planned), written=written)


def generate(opened: Opened, *, perceive: bool, worker: Worker = ALONE) -> None:
    """Draw what is missing; with `perceive`, read it on the way, and then what was drawn before.

    One of several workers does this for its own shards.
    """
    run, study, planned = opened
    mine = planned.shards(worker)
    written: list[int] = []

    def reader() -> Perceiver:
        return noted(run, study, open_perceiver(study))

    def draws() -> Generator:
        return open_generator(study, planned)

    with metered(run.folder, images=lambda: sum(written), shared=worker.of > 1):
        stages.draw(run, planned, draws, reader if perceive else None, shards=mine, written=written)
        name, by = study.perceive.name, _same_clip(run, study)
        while perceive and stages.perceive(run, planned, reader, name, by, shards=mine):
            stages.draw(run, planned, draws, reader, shards=mine, written=written)


def perceive(opened: Readable, changes: Sequence[str] = ()) -> None:
    """Read what has been drawn and not read, with the perceiver of the study or, changed, with another beside it."""
    run, study, planned = opened
    by = other_perceiver(study, changes) if changes else study
    name = by.perceive.name
    if by.perceive != study.perceive and name == study.perceive.name:
        raise InputError(
            "--set: this is the study's own perceiver with another threshold or other attributes, for which there is one "
            "folder; the right answers are: perceive.clip, perceive.pretrained, perceive.probe, perceive.people"
        )
    _as_before(run, name, perceive=by.perceive.model_dump(mode="json"))
    with metered(run.folder, images=lambda: 0):  # of a sum that counts images by who made them
        damaged = stages.perceive(run, planned, lambda: noted(run, by, open_perceiver(by)), name, _same_clip(run, by))
    if damaged:
        again = (
            f"typecast import {study.pictures}" if isinstance(study, FolderStudy) else f"typecast generate {run.folder}"
        )
        raise RunError(f"{run.folder}: {len(damaged)} shards are set aside; run: {again}, then perceive again")


def other_perceiver(study: Study | FolderStudy, changes: Sequence[str]) -> Study | FolderStudy:
    """The study of a run, read by something else. Only what the perceiver is may change: the images are there."""
    raw = study.model_dump(mode="json")
    keys = [change.partition("=")[0] for change in changes]
    wrong = [key for key in keys if not key.startswith("perceive.")]
    if wrong:
        raise InputError(f"--set {wrong[0]}: the images are drawn; only what is under perceive can be changed here")
    if "perceive.probe" in keys:
        raw["perceive"].pop("threshold")  # each kind has its own
    for change in changes:
        checks.set_by_path(raw, change)
    parse = studies.parse_folder if isinstance(study, FolderStudy) else studies.parse
    return parse(raw, where="--set")


def _same_clip(run: Run, study: Study | FolderStudy) -> str | None:
    """Another perceiver of this run with the same CLIP and the same choice of people: its embeddings, and the faces that
    it found, are those that this one would make."""
    wanted = study.perceive.model_dump(mode="json", include={"clip", "pretrained", "people"})
    others = {name: by.get("perceive", {}) for name, by in perceivers(run).items() if name != study.perceive.name}
    return next((name for name, by in others.items() if wanted.items() <= by.items()), None)


def perceivers(run: Run) -> dict[str, dict[str, Any]]:
    """What is known of every perceiver that has read images of this run, by name."""
    files = sorted(run.folder.glob("perceptions/*/perceiver.json"))
    return {file.parent.name: stages.read_json(file) for file in files}


def noted(run: Run, study: Study | FolderStudy, perceiver: Perceiver) -> Perceiver:
    """Write down what the perceiver is. One that is another than it was under this name is refused."""
    folder = run.perceptions(perceiver.name, "x").parent
    described = stages.describe(perceiver, same_domain=_same_domain(study)) | {
        "perceive": study.perceive.model_dump(mode="json")
    }
    within = getattr(perceiver, "inner", perceiver)
    if isinstance(within, probe.Probe):
        described["clip_sees"] = _clip_of(run, study, within)
        if within.sha256:
            described["probe_sha256"] = within.sha256
    _as_before(run, perceiver.name, **{key: described.get(key) for key in ("perceive", "probe_sha256")})
    store.write_json(folder / "perceiver.json", described)
    if isinstance(within, probe.Probe):
        wordings.write(folder / wordings.FILE, within)
    if len(study.arms) > 1:
        store.write_json(folder / "concepts.json", _concepts(study, perceiver))
    return perceiver


def _as_before(run: Run, name: str, **described: Any) -> None:
    """Who has read images of this run under a name is still the same, as far as it is described, or a `RunError`."""
    folder, before = run.perceptions(name, "x").parent, perceivers(run).get(name, {})
    if any(key in before and before[key] != value for key, value in described.items()) and any(
        folder.glob("*.parquet")
    ):
        raise RunError(
            f"{folder}: was read by another probe or with other settings; delete the folder, or give the probe "
            "another name"
        )


def _clip_of(run: Run, study: Study | FolderStudy, by: probe.Probe) -> list[float]:
    """What the CLIP makes of one fixed picture, `(d,)`. What another of its name has read in this run is refused: its
    decisions would stand beside this one's errors, or its embeddings be taken for this one's."""
    sees = probe.fingerprint_of(by.clip)
    wanted = study.perceive.model_dump(mode="json", include={"clip", "pretrained"})
    for name, known in perceivers(run).items():
        folder = run.perceptions(name, "x").parent
        same_name = wanted.items() <= known.get("perceive", {}).items() and any(folder.glob("*.parquet"))
        if same_name and not probe.alike(np.array(known.get("clip_sees", []), np.float32), sees):
            raise RunError(
                f"{folder}: was read by other weights under the name {study.perceive.clip}, or by a Typecast that did not "
                "note which; delete the folder, and what was drawn is read again"
            )
    return [round(float(value), 5) for value in sees]


def _concepts(study: Study | FolderStudy, perceiver: Perceiver) -> dict[str, Any]:
    """The words of each concept with their embedding, by which it is seen whether a picture still shows it."""
    concepts = dict.fromkeys(prompt.concept for prompt in study.prompts())
    texts = [f"a photo of {prompt_sets.article(concept)} {concept}" for concept in concepts]
    vectors = perceiver.encode_texts(texts).astype(float).round(5).tolist()
    return {c: {"text": t, "embedding": v} for c, t, v in zip(concepts, texts, vectors, strict=True)}


def readings(study: Study, folder: Path) -> tuple[list[tables.Reading], dict[str, float]]:
    """What is known of a study's perceiver: from its run, if there is one, with what people labelled there, else by opening
    it. And by attribute the share of the run's images of one person, in 0..1, that it cannot tell."""
    name = study.perceive.name
    described = Run(folder).perceptions(name, "x").with_name("perceiver.json")
    if not described.is_file():
        return tables.readings(stages.describe(open_perceiver(study), same_domain=_same_domain(study))), {}
    attributes = tables.described_in(described)
    try:
        run, _, planned = reopen(folder)
        counts = labels.counted(run, planned, name, attributes, tables.tally(run, planned, name, attributes))
    except RunError as error:
        stages.say(f"{error}; what was read and labelled there is not counted")
        return attributes, {}
    asked = tables.keys(planned)
    seen = {a.attribute: np.sum([counts.count(key, a) for key in asked], axis=0) for a in attributes}
    untold = {attribute: float(row[-1] / row.sum()) for attribute, row in seen.items() if row.any()}
    return [tables.informed(reading, counts, asked) for reading in attributes], untold


def read_by(run: Run, study: Study | FolderStudy) -> list[tables.Reading]:
    """What a run's perceiver reads, once it has."""
    path = run.perceptions(study.perceive.name, "x").with_name("perceiver.json")
    if not path.is_file():
        again = f"run: typecast perceive {run.folder}"
        if any(path.parent.glob("*.parquet")):
            raise RunError(f"{path}: is missing, and says who read what is beside it; delete its folder and {again}")
        raise RunError(f"{run.folder}: is not perceived yet; {again}")
    return tables.described_in(path)


def _same_domain(study: Study | FolderStudy) -> bool:
    """The records that ship were counted on emoji, and hold for those alone. A probe that somebody fitted has its own: who
    names it says that the pictures are of the kind that it was measured on."""
    ships = study.perceive.clip == "embedded" and probe_folder(study.perceive.probe) in (None, EMBEDDED_PROBE)
    return not ships or (isinstance(study, Study) and study.model.path == "embedded")


def estimate(opened: Readable) -> str:
    """`estimates.csv` and `summary.json`, and of a study with several arms `effects.csv`; returns the headline.

    By the perceiver of the study. What another one has read is estimated in the folder of its perceptions.
    """
    run, study, planned = opened
    stages.weights_of(run, planned)
    add_up(run.folder)
    undrawn = len(planned) - stages.finished(run, planned.shards())
    if undrawn:
        stages.say(f"{undrawn:,} of {len(planned):,} images are not drawn yet: what follows is of the others")
    name = study.perceive.name
    attributes = read_by(run, study)
    counts = labels.counted(run, planned, name, attributes, tables.tally(run, planned, name, attributes))
    with tables.doubts(attributes, stages.say):
        shares, found = _estimated(run.folder, opened, attributes, counts)
        found["labels"] = labels.summary(run, planned, name, attributes)
        sampled = found["labels"]["sampled"] if found["labels"] else 0
        for attribute, people in (found["labels"]["attributes"] if found["labels"] else {}).items():
            if 0 < people["labelled"] < sampled:
                stages.say(
                    f"{attribute}: people labelled {people['labelled']} of the {sampled} pictures of the sample; these "
                    "count as if chance had chosen them, so label the others too"
                )
            if people["disagreed"]:
                stages.say(
                    f"{attribute}: people disagree about {people['disagreed']} of the {people['labelled']} pictures that they "
                    "labelled; what they say of these is not counted"
                )
        found["two_tones"] = tables.two_tones(run, planned, name, attributes)
        found["left_out"] = tables.left_out(run, planned, name, attributes)
        changed: list[dict[str, Any]] = []
        followed: list[dict[str, Any]] = []
        if isinstance(planned, Plan):
            arms = effects.added_up(run, planned, name, attributes, counts.nobody)
            read = effects.Read(run=run, planned=planned, readings=attributes, counts=counts, shares=shares, arms=arms)
            changed, followed = effects.effects(read), effects.obedience(read)
            found["arms"] = effects.helped(read, followed)
    if changed:
        store.write_text(run.folder / "effects.csv", tables.to_csv(changed, changes.COLUMNS))
    for arm in dict.fromkeys(row["arm"] for row in followed):
        own = [row for row in followed if row["arm"] == arm]
        store.write_text(
            run.folder / f"obedience-{arm}.csv", tables.to_csv(own, (*mitigations.OBEDIENCE, *mitigations.MEASURED_AT))
        )
    rows, found["wordings"] = wordings.spread(run, planned, name, attributes)
    if rows:
        store.write_text(run.folder / "wordings.csv", tables.to_csv(rows, wordings.COLUMNS))
    found["perceiver"] = name
    found["other_perceivers"] = [*_others(opened, attributes)]
    store.write_json(run.folder / "summary.json", found)
    return str(found["headline"])


def _estimated(
    folder: Path, opened: Readable, attributes: Sequence[tables.Reading], counts: tables.Tally
) -> tuple[dict[str, dict[tables.Key, Shares]], dict[str, Any]]:
    """The estimates of one perceiver, written into a folder; the shares, and what is to be summed up."""
    planned = opened[2]
    informed = [tables.informed(reading, counts, tables.keys(planned)) for reading in attributes]
    shares, found = summary.estimates(planned, counts, attributes, informed)
    rows = tables.estimate(planned, counts, attributes, shares)
    store.write_text(folder / "estimates.csv", tables.to_csv(rows))
    return shares, found


def _others(opened: Readable, own: Sequence[tables.Reading]) -> Iterator[dict[str, Any]]:
    """The other perceivers that have read all images: each estimated on its own, and how often it says the same."""
    run, study, planned = opened
    for name in perceivers(run):
        if name == study.perceive.name:
            continue
        folder = run.perceptions(name, "x").parent
        try:
            attributes = tables.described_in(folder / "perceiver.json")
            counts = labels.counted(run, planned, name, attributes, tables.tally(run, planned, name, attributes))
        except RunError as error:
            for stale in ("estimates.csv", "summary.json"):
                (folder / stale).unlink(missing_ok=True)
            drawn = [shard for shard in planned.shards() if run.images(shard).exists()]
            why = str(error)
            if not all(run.perceptions(name, shard).exists() for shard in drawn):
                why = f"it has not read all images; run: {_reading(run, study, name)}"
            stages.say(f"perceptions/{name} is left out: {why}")
            continue
        with tables.doubts(attributes, stages.say):
            _, found = _estimated(folder, opened, attributes, counts)
        found["perceiver"] = name
        store.write_json(folder / "summary.json", found)
        yield {
            "name": name,
            "headline": found["headline"],
            "pooled": found["pooled"],
            "classifier": found["classifier"],
            "agreement": tables.agreement(run, planned, (study.perceive.name, name), (own, attributes)),
        }


def _reading(run: Run, study: Study | FolderStudy, name: str) -> str:
    """The command by which another perceiver of a run reads what it has not read."""
    own, by = study.perceive.model_dump(mode="json"), perceivers(run)[name].get("perceive", {})
    words = ["typecast", "perceive", str(run.folder)]
    for key, value in by.items():
        if value != own.get(key):
            words += ["--set", f"perceive.{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def report(opened: Readable) -> Path:
    """The figures and the page."""
    from pipeline.report import write_report

    stages.weights_of(opened[0], opened[2])
    return write_report(opened[0].folder)


def status(opened: Readable) -> dict[str, Any]:
    """How far a run is, from the disk alone."""
    run, study, planned = opened
    return stages.status(run, planned, study.perceive.name) | labels.labelled(run)


def fetch(study: Study) -> None:
    """Download the models of a study, the chat models of its arms among them."""
    generation.fetch(study.model.path, study.model.revision)
    open_perceiver(study)
    for arm in study.rewriters():
        arm.fetch()


def preview(opened: Opened) -> str:
    """What a run would do, for `--dry-run`. Loads no model."""
    run, study, planned = opened
    shards = planned.shards()
    done = sum(stages.there(run, planned, shard) for shard in shards)
    first = planned.units(shards[0])[:5]
    lines = [
        f"study    {study.name}: {len(planned.prompts)} prompts x {study.images_per_prompt} images "
        f"x {len(planned.arms)} arms",
        f"model    {study.model.path}, {study.draw.num_inference_steps} steps, guidance {study.draw.guidance_scale:g}",
        f"images   {len(planned):,} in {len(shards)} shards, {done} of them finished in {run.folder}",
        f"perceive {', '.join(study.perceive.attributes)} with {study.perceive.name}",
        "against  " + ("; ".join(a.title for a in tables.references(planned)) or "no reference"),
        "first prompts:",
        *(f"  {unit.prompt_sent}   (seed {unit.seed})" for unit in first),
    ]
    return "\n".join(lines)
