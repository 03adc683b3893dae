"""The door: `typecast run STUDY` and its stages. Options are read here; functions take values."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipeline.errors import (
    InputError,
    Interrupted,
    ModelError,
    TypecastError,
    keep_secrets,
    of_the_device,
    without_secrets,
)

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.line import Readable
    from pipeline.study import Study

app = typer.Typer(
    name="typecast",
    help="Measure how text-to-image models typecast people. Start with: typecast run emoji",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

arms = typer.Typer(no_args_is_help=False)
app.add_typer(arms, name="arms")
probe = typer.Typer(no_args_is_help=True, help="Fit a probe to labelled pictures, or say how wrong one is on them.")
app.add_typer(probe, name="probe")

labels = typer.Typer(
    no_args_is_help=True, help="What people say of a random sample of the pictures, for the estimates."
)
app.add_typer(labels, name="labels")

StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study that ships (see: typecast studies), or a YAML file.")
]
StudyOrRun = Annotated[
    str,
    typer.Argument(metavar="STUDY", help="A study that ships, a YAML file, or the folder of a run, to go on with it."),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder, such as outputs/emoji.")]
Out = Annotated[Path | None, typer.Option("--out", help="The run folder. Default: outputs/<study name>.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the study: draw.guidance_scale=5. Repeatable."),
]


AGAIN = "what was finished is kept, and the same command continues"
_UNWRITABLE = "let it be read and written, or name another folder (a new run's with --out)"
ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), f"make room; {AGAIN}"),
    **dict.fromkeys(
        (
            errno.ENOENT,
            errno.EROFS,
            errno.EACCES,
            errno.EPERM,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EEXIST,
            errno.ENAMETOOLONG,
        ),
        _UNWRITABLE,
    ),
    errno.EIO: f"{AGAIN}; if it stays so the disk is damaged there: move the file away, and it is made again",
}
"""What to do about an error of the file system."""


class Engine(StrEnum):
    """What starts the processes that draw."""

    local = "local"
    ray = "ray"


def main() -> NoReturn:
    """Run the command line: 0 done, 1 done with failures, 2 wrong input, 3 a fault of Typecast's own, 130 interrupted."""
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    keep_secrets()
    try:
        app()
    except TypecastError as error:
        _refuse(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _refuse(f"{where}{error.strerror or error}; {ADVICE.get(error.errno or 0, AGAIN)}")
    except Exception as error:
        if of_the_device(error):
            said = str(error).strip().splitlines() or [type(error).__name__]
            _refuse(f"the device: {said[0]}; {AGAIN}")
        # A fault of ours: all that is known of it, for a report, but no secret, for this may become a log.
        print(without_secrets(traceback.format_exc()), file=sys.stderr, end="")
        print("typecast: this is a fault of Typecast's own; what was finished is kept", file=sys.stderr)
        sys.exit(3)
    sys.exit(0)


def _refuse(message: str) -> NoReturn:
    print(f"typecast: {without_secrets(message)}", file=sys.stderr)
    sys.exit(2)


PATIENCE = 20
"""Seconds after an interruption for what is being written to be finished, before the process ends as it stands."""


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    print("\ntypecast: interrupted; finished shards are kept, and the same command continues", file=sys.stderr)
    # Raised within the code of a lock, an exit leaves it locked, and whoever waits for it would wait for ever.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(130))
    signal.alarm(PATIENCE)
    raise Interrupted(130)


def _naming_its_study(command: Callable[..., None]) -> Callable[..., None]:
    """A model that cannot be used is somebody's mistake in a study: say which."""

    @functools.wraps(command)
    def named(**options: Any) -> None:
        try:
            command(**options)
        except ModelError as error:
            raise ModelError(f"{options['study']}: {error}") from error

    return named


@app.command()
@_naming_its_study
def run(
    study: StudyName,
    out: Out = None,
    change: Changes = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Draw again the images that failed.")] = False,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs of this machine that draw side by side.")] = 1,
    engine: Annotated[Engine, typer.Option("--engine", help="What starts the processes that draw.")] = Engine.local,
    address: Annotated[
        str | None, typer.Option("--address", help="A Ray cluster. Default: one is started here, for this run.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be drawn, and stop.")] = False,
) -> None:
    """Draw, perceive, estimate and report; or continue where an earlier run of the same study stopped."""
    if engine is Engine.ray and gpus > 1:
        raise InputError("--gpus is of this machine; with --engine ray every GPU of the cluster draws")
    if address is not None and not address.strip():
        raise InputError(
            "--address: is empty; it is HOST:PORT, or auto; without it, a Ray is started here, for this run"
        )
    if engine is not Engine.ray and address:
        raise InputError("--address names a Ray cluster; it needs --engine ray")
    if retry_failed and (engine is Engine.ray or gpus > 1):
        raise InputError("--retry-failed draws in this process; give it without --engine and --gpus")
    from pipeline import line, stages
    from pipeline import study as studies

    chosen = studies.load(study, tuple(change or ()))
    folder = out or Path("outputs") / chosen.name
    if dry_run:
        seen = line.look(chosen, folder)
        print(line.preview(seen))
        if gpus > 1:
            stages.say_who_is_idle(len(seen[2].shards()), gpus)
        return
    opened = line.begin(chosen, folder)
    if retry_failed:
        line.retry(opened)
    if engine is Engine.ray:
        from pipeline.engines import ray

        ray.generate(opened, address)
    elif gpus > 1:
        from pipeline.engines import local

        local.generate(opened, gpus)
    else:
        line.generate(opened, perceive=True)
    _finish(opened)


@app.command()
@_naming_its_study
def launch(
    study: StudyName,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE,...",
            help="partition=gpu,nodes=4,gpus_per_node=8,time=4:00:00: any option of sbatch; exclusive=true for a flag.",
        ),
    ] = None,
    container: Annotated[
        str | None, typer.Option("--container", metavar="IMAGE", help="Run in this image, with apptainer.")
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(
            "--setup", metavar="LINE", help="A line of shell that comes first: module load, a venv. Repeatable."
        ),
    ] = None,
    out: Out = None,
    change: Changes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the scripts, and stop.")] = False,
) -> None:
    """Submit a study to Slurm: a job per node that draws and perceives, and one that estimates and reports."""
    from pipeline import line, stages
    from pipeline import study as studies
    from pipeline.engines import slurm as cluster
    from pipeline.plan import plan
    from pipeline.store import Run

    asked = cluster.Asked(cluster.options(slurm or ()), container, tuple(setup or ()))
    chosen = studies.load(study, tuple(change or ()))
    folder = out or Path("outputs") / chosen.name
    texts = cluster.scripts(folder, chosen.name, asked)
    if not dry_run:
        cluster.look_for_sbatch()
    planned = plan(stages.asked(Run(folder), chosen)[1], weights="") if dry_run else line.begin(chosen, folder)[2]
    stages.say_who_is_idle(len(planned.shards()), asked.nodes * asked.per_node)
    if dry_run:
        print("\n".join(texts))
        return
    workers, last = cluster.launch(folder, chosen.name, asked)
    print(f"submitted: {workers}, {asked.nodes} x {asked.per_node} workers; then {last}, estimates and report")
    print(f"follow:    typecast status {folder}")
    print(f"logs:      {folder / cluster.FOLDER}")


@app.command()
@_naming_its_study
def worker(
    study: StudyOrRun,
    rank: Annotated[str, typer.Option("--rank", help="Which one this is, from 0; or who knows it: accelerate, slurm.")],
    of: Annotated[int, typer.Option("--of", min=1, help="How many workers there are.")],
    out: Out = None,
    change: Changes = None,
) -> None:
    """Draw and perceive one worker's part of a study; start as many as you say, anywhere, in any order or all at once.

    Then: typecast estimate RUN, and typecast report RUN.
    """
    from pipeline import line
    from pipeline.engines import local, slurm
    from pipeline.types import Worker

    chosen, folder = _to_draw(study, out, change)
    os.environ["OMP_NUM_THREADS"] = str(chosen.draw.threads)  # before torch counts the processors
    if rank in (local.RANK, slurm.RANK):
        this = (local if rank == local.RANK else slurm).worker(of)
    elif rank.isdecimal() and int(rank) < of:
        _take_gpu(of)
        this = Worker(int(rank), of)
    else:
        raise InputError(f"--rank {rank}: the right answers are: 0 to {of - 1}, {local.RANK}, {slurm.RANK}")
    line.generate(line.begin(chosen, folder), perceive=True, worker=this)


def _take_gpu(of: int) -> None:
    """One GPU for a worker that somebody else has started: by LOCAL_RANK, else the only one that it can see."""
    from pipeline import generate as generation

    local = os.environ.get("LOCAL_RANK", "")
    if local.isdecimal():
        generation.take_gpu(int(local))
    elif of > 1 and (seen := generation.gpus()) > 1:
        raise InputError(
            f"CUDA_VISIBLE_DEVICES: this worker sees {seen} GPUs, and all workers of a machine would draw on the first; "
            "let each see one: CUDA_VISIBLE_DEVICES=3 typecast worker …, or let LOCAL_RANK number those of a machine"
        )


@app.command()
@_naming_its_study
def generate(study: StudyOrRun, out: Out = None, change: Changes = None) -> None:
    """Only draw: the images of a study, or those that a run folder still lacks."""
    from pipeline import line

    opened = line.begin(*_to_draw(study, out, change))
    line.generate(opened, perceive=False)
    _exit_with(opened)


def _to_draw(name: str, out: Path | None, change: list[str] | None) -> tuple[Study, Path]:
    """A study and its run folder, or those of a run that is named itself."""
    from pipeline import stages
    from pipeline import study as studies

    if (Path(name) / "study.yaml").is_file():
        if change or out:
            raise InputError(
                f"{name}: is a run, and goes on as it began; --set and --out belong to the study that it is of: "
                f"STUDY --set … --out {name}"
            )
        return stages.load_run(Path(name))[1], Path(name)
    chosen = studies.load(name, tuple(change or ()))
    return chosen, out or Path("outputs") / chosen.name


@app.command()
def perceive(
    folder: Folder,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another perceiver beside the study's: perceive.probe=FOLDER."),
    ] = None,
) -> None:
    """Only perceive: read the images of a run that have not been read yet, or read them by another probe as well."""
    from pipeline import line

    line.perceive(line.reopen(folder), tuple(change or ()))


@app.command()
def estimate(folder: Folder) -> None:
    """Only estimate: shares, intervals and amplification, from what was perceived."""
    from pipeline import line

    print(line.estimate(line.reopen(folder)))


@app.command()
def report(folder: Folder) -> None:
    """Only report: the page and the figures, from the estimates."""
    from pipeline.report import write_report

    print(write_report(folder))


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(metavar="FOLDER|STUDY", help="A folder of pictures, or a study that names counts or labels."),
    ],
    concept: Annotated[
        str | None,
        typer.Option("--concept", help="What all pictures of the folder show: ceo. Default: the sub-folders say it."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Who made the pictures, for the report; default: the folder's name.")
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Every file is a 2x2 grid, such as Midjourney's: cut it into four.")
    ] = False,
    change: Changes = None,
    out: Out = None,
) -> None:
    """Audit pictures made elsewhere: a folder of them, which is perceived here, or a study's counts or labels."""
    import prompt_sets

    if concept is not None and not concept.strip("_ \t"):
        raise InputError(f"--concept {concept!r}: name what all pictures show, such as: --concept ceo; or leave it out")
    if source not in prompt_sets.studies() and Path(source).is_dir():
        _import_folder(Path(source), concept, model, grid, tuple(change or ()), out)
    elif concept or model or grid or change:
        raise InputError(f"{source}: no such folder; --concept, --model, --grid and --set are for a folder of pictures")
    elif source in prompt_sets.studies() or Path(source).is_file():
        _import_study(source, out)
    else:
        from pipeline import study as studies

        ships = ", ".join(name for name in sorted(prompt_sets.studies()) if studies.is_import(name))
        raise InputError(
            f"{source}: no such folder or study file; the studies that ship and can be imported are: {ships}"
        )


def _import_folder(
    folder: Path, concept: str | None, model: str | None, grid: bool, changes: tuple[str, ...], out: Path | None
) -> None:
    from pipeline import album, line, stages

    run, study, pictures = opened = line.import_folder(
        folder, concept=concept, model=model, grid=grid, changes=changes, out=out
    )
    assert isinstance(pictures, album.Album)
    if study.perceive.clip == "embedded":
        stages.say(
            "read by the embedded CLIP, which knows emoji and no photographs; name another, such as: "
            "--set perceive.clip=ViT-L-14 --set perceive.pretrained=openai"
        )
    again = album.repeated(run, pictures)
    if again:
        stages.say(f"{again} pictures are the same as an earlier one, pixel by pixel; they are counted")
    _list_failed(folder, album.failures(run, pictures))
    line.perceive(opened)
    _finish(opened)


def _list_failed(folder: Path, failed: list[tuple[str, str]]) -> None:
    """The first files that gave no picture, with the reasons, and how many more there are."""
    from pipeline import checks, stages

    for name, reason in failed[: checks.MOST_PROBLEMS]:
        stages.say(f"{folder / name}: {reason}")
    if len(failed) > checks.MOST_PROBLEMS:
        stages.say(f"{folder}: and {len(failed) - checks.MOST_PROBLEMS} more")


def _import_study(name: str, out: Path | None) -> None:
    from pipeline import imports, report, stages
    from pipeline import study as studies

    chosen, folder = studies.load_import(name)
    run, found = imports.begin(chosen, folder, out or Path("outputs") / chosen.name)
    stages.say(f"{len(found):,} pictures of {len(found.prompts)} concepts are read; estimating")
    headline = imports.estimate(run, found)
    page = report.write_report(run.folder)
    print(headline)
    print(f"report: {page}")
    if found.not_here:
        _list_failed(folder / (chosen.images or ""), [*found.not_here.items()])
        print(f"{len(found.not_here)} pictures failed: they are not in {chosen.images}, or unreadable", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def status(
    folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="As JSON, for a script.")] = False
) -> None:
    """How far a run is and what failed, from the disk alone."""
    from pipeline import line

    found = line.status(line.reopen(folder))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for key, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{key.replace('_', ' '):18} {'-' if value in ([], {}) else shown}")


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN ...", help="Run folders; the first is the baseline.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Where to write. Default: outputs/<run>-vs-<run>.")] = None,
) -> None:
    """Several models or settings beside each other: how far every share moved from the first run."""
    from pipeline import compare as comparing
    from pipeline import figures

    rows, found = comparing.compare(folders)
    where = out or Path("outputs") / "-vs-".join(folder.resolve().name for folder in folders)
    written = comparing.write(where, rows, found)
    figures.compared(written, where / "figures")
    _print(comparing.shown(written, found))
    print(f"written: {where / 'compare.csv'}, compare.json and figures")


@app.command()
@_naming_its_study
def plan(
    study: StudyName,
    precision: Annotated[float, typer.Option("--precision", help="Half-width of the 95% intervals, in points.")],
    labels: Annotated[
        int | None,
        typer.Option("--labels", help="What if as many pictures of each level were labelled, and misread as now."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Images per second. Default: as measured in the study's run.")
    ] = None,
    change: Changes = None,
) -> None:
    """How many images, labelled pictures and hours a wanted precision needs, of each attribute alone: of combinations,
    such as gender and skin tone together, each has fewer images and a wider interval.

    What people labelled in the study's run, outputs/<study name>, counts, and what the probe cannot tell there.
    """
    from pipeline import line
    from pipeline import precision as precise
    from pipeline import study as studies

    if rate is not None and not 0 < rate < float("inf"):
        raise InputError(f"--rate {rate:g}: give images per second, more than 0")
    chosen = studies.load(study, tuple(change or ()))
    folder = Path("outputs") / chosen.name
    half = precision / 100
    readings, undecided = line.readings(chosen, folder)
    found = precise.needs(chosen, readings, half, labels, undecided)
    source = "--rate" if rate else f"measured in {folder}"
    _print(precise.shown(chosen, found, half, rate or precise.measured_rate(folder), source))


@app.command()
def studies() -> None:
    """List the studies that ship."""
    import prompt_sets
    from pipeline import study as loader

    for name in sorted(prompt_sets.studies()):
        if loader.is_import(name):
            elsewhere, _ = loader.load_import(name)
            print(f"{name:20} {'imported':>15}  {elsewhere.read_by.who}  {elsewhere.description}")
            continue
        chosen = loader.load(name)
        images = len(chosen.prompts()) * len(chosen.arms) * chosen.images_per_prompt
        print(f"{name:20} {images:>8,} images  {chosen.model.path}  {chosen.description}")


@app.command()
def prompts(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A prompt set; without it, all are listed.")
    ] = None,
) -> None:
    """List the prompt sets that ship, or the prompts of one."""
    import prompt_sets

    if name is None:
        for known in prompt_sets.names():
            chosen = prompt_sets.load(known)
            print(f"{known:20} {len(chosen.prompts):>6} prompts  {chosen.status:10} {chosen.description}")
        return
    for prompt in prompt_sets.load(name).prompts:
        print(f"{prompt.concept}\t{prompt.template}\t{prompt.identity or '-'}\t{prompt.text}")


@arms.callback(invoke_without_command=True)
def list_arms(context: typer.Context) -> None:
    """List the ways to rewrite a prompt, each with its parameters and its source."""
    from pipeline.mitigations import ARMS

    if context.invoked_subcommand:
        return
    for name, arm in ARMS.items():
        needs = [key for key, field in arm.model_fields.items() if field.is_required()]
        may = [
            key
            for key, field in arm.model_fields.items()
            if not field.is_required() and key not in ("name", *arm.written)
        ]
        print(f"{name:18} {(arm.__doc__ or '').splitlines()[0]}")
        print(f"{'':18} parameters: {', '.join([*needs, *(f'[{key}]' for key in may)]) or 'none'}")
        print(f"{'':18} from: {arm.source}")
    print(f"{'FILE.py:CLASS':18} One of yours: a class made from pipeline.mitigations.Rewriter.")


@arms.command("try")
def try_arm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An arm (see: typecast arms), or FILE.py:CLASS.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help='Such as "a photo of a nurse".')],
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the arm: to=uniform. Repeatable."),
    ] = None,
) -> None:
    """Print what an arm would send for ten samples of a prompt."""
    from pipeline import mitigations

    for sent in mitigations.tried(name, prompt, tuple(change or ())):
        more = [f"negative: {sent.negative_prompt}"] if sent.negative_prompt else []
        more += [sent.drawn] if sent.drawn else []
        print("\t".join([sent.text, *more]))


Pictures = Annotated[
    str,
    typer.Argument(
        metavar="PICTURES",
        help="Labelled pictures: a CSV, a folder (a folder of pictures per level; FairFace; the Chicago Face Database; "
        "a saved dataset), or emoji, the world of the embedded models.",
    ),
]
Clip = Annotated[str, typer.Option("--clip", help="As perceive.clip in a study.")]
Pretrained = Annotated[str | None, typer.Option("--pretrained", help="As perceive.pretrained in a study.")]


@probe.command("fit")
def fit_probe(
    pictures: Pictures,
    out: Annotated[Path, typer.Option("--out", help="The folder of the probe; then: perceive.probe: FOLDER.")],
    clip: Clip = "embedded",
    pretrained: Pretrained = None,
    kind: Annotated[
        str, typer.Option("--kind", help="linear, prototype, or zero_shot: calibrated and measured, not learnt.")
    ] = "linear",
    attributes: Annotated[
        list[str] | None,
        typer.Option("--attributes", help="Read these alone. Default: all that are labelled. Repeatable."),
    ] = None,
    risk: Annotated[
        float, typer.Option("--risk", help="The share of wrong decisions that `cannot tell` is to keep to.")
    ] = 0.05,
) -> None:
    """Fit a probe to labelled pictures, calibrate it, choose when it says `cannot tell`, and measure its errors."""
    from pipeline import probes

    found = probes.fit_folder(
        pictures, clip=clip, pretrained=pretrained, kind=kind, attributes=attributes or (), risk=risk, out=out
    )
    _show_probe(found)
    for name, entry in found["attributes"].items():
        if not entry["keeps_the_risk"]:
            print(
                f"{name}: no threshold was found that is sure to keep the errors at {risk:g}; the one whose upper bound "
                "is least is taken",
                file=sys.stderr,
            )
    print(f"written: {out}; use it in a study with perceive.probe: {out}")
    if found["unreadable"]:
        raise typer.Exit(1)


@probe.command("evaluate")
def evaluate_probe(
    name: Annotated[str, typer.Argument(metavar="PROBE", help="zero_shot, embedded, or a folder of `probe fit`.")],
    pictures: Pictures,
    clip: Clip = "embedded",
    pretrained: Pretrained = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: outputs/probe-<probe>-on-<pictures>.")] = None,
) -> None:
    """How wrong a probe is on labelled pictures that it has not seen: by level, group and concept, and calibrated."""
    from pipeline import line, probes

    probe, folder = line.named_probe(name, pictures, clip, pretrained)
    where = out or Path("outputs") / f"probe-{Path(name).name}-on-{Path(pictures).stem}"
    found = probes.evaluate_folder(probe, pictures, folder=folder, out=where)
    _show_probe(found)
    print(f"written: {where}")
    if found["unreadable"]:
        raise typer.Exit(1)


def _show_probe(found: dict[str, Any]) -> None:
    from pipeline import probes

    _print(probes.shown(found))


@app.command()
def explain(
    folder: Folder,
    unit: Annotated[str, typer.Argument(metavar="UNIT", help="The unit_id of an image, or its first letters.")],
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="By another perceiver: perceive.probe=FOLDER. Repeatable."),
    ] = None,
) -> None:
    """Why an image was read as it was: probabilities, margins, each wording's vote, what people said, the nearest labels."""
    from pipeline import explain as explaining
    from pipeline import line

    _print(explaining.shown(*explaining.explain(line.reopen(folder), unit, tuple(change or ()))))


@labels.command("sample")
def sample_labels(
    folder: Folder,
    per_concept: Annotated[int, typer.Option("--per-concept", min=1, help="Pictures of each concept.")] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draw; a sample is declared once.")] = 0,
) -> None:
    """Draw a random sample of a run's pictures, and write a sheet to label them: a page, and a CSV to fill in."""
    from pipeline import labels, line, report

    run, study, planned = line.reopen(folder)
    readings = line.read_by(run, study)
    sample = labels.draw(run, planned, study.perceive.name, readings, per_concept=per_concept, seed=seed)
    page = report.write_sheet(run, sample, readings, study.perceive.people)
    print(f"{len(sample.units)} pictures; open the page, label them, and save the answers: {page}")
    print(
        f"or fill in a copy of {page.with_suffix('.csv')} for each person; then: typecast labels import {folder} FILE ..."
    )


@labels.command("import")
def import_labels(
    folder: Folder,
    files: Annotated[list[Path], typer.Argument(metavar="FILE ...", help="Filled sheets, one for each person.")],
) -> None:
    """Read filled sheets, and estimate and report with them; the same file again changes nothing.

    Labels of pictures outside of the sample are kept as corrections: they are shown, and move no estimate.
    """
    from datetime import UTC, datetime

    from pipeline import labels, line

    run, study, planned = opened = line.reopen(folder)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new, corrections = labels.take(run, planned, line.read_by(run, study), files, now=now)
    print(f"{len(new)} new labels of the sample, and {len(corrections)} corrections outside of it")
    _finish(opened)


@app.command()
def validate(
    short: Annotated[bool, typer.Option("--short", help="A few cells with 200 audits each: under a minute.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, other audits.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="What was found; continue here.")] = Path("outputs/validation"),
) -> None:
    """Simulate audits whose truth is known: do the intervals hold it? Exit code 1 if some hold it too seldom.

    In a checkout, all of it (hours) writes the tables of docs/validation.md once there are as many rows as it has; --short
    prints them alone.
    """
    from pipeline import validate as proof

    text, failed = proof.validate(out, short=short, seed=seed)
    print(text)
    for sentence in failed:
        print(f"fails: {sentence}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command()
@_naming_its_study
def fetch(study: StudyName, change: Changes = None) -> None:
    """Download the models of a study once, for machines without a network."""
    from pipeline import line
    from pipeline import study as loader

    line.fetch(loader.load(study, tuple(change or ())))


def _print(parts: Iterable[Table | str]) -> None:
    """As they are: `[/x]` and `:x:` in the name of a concept are no markup of the console's."""
    from rich.console import Console

    console = Console(markup=False, emoji=False)
    for part in parts:
        console.print(part)


def _finish(opened: Readable) -> None:
    from pipeline import line

    headline = line.estimate(opened)
    page = line.report(opened)
    print(headline)
    print(f"report: {page}")
    _exit_with(opened)


def _exit_with(opened: Readable) -> None:
    """Exit code 1 and the reasons, if images are missing."""
    from pipeline import line

    reasons = line.status(opened)["reasons"]
    for reason, n in reasons.items():
        print(f"{n} images {reason}", file=sys.stderr)
    if reasons:
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
