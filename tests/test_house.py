"""The house itself: imports go one way, heavy libraries come in by one door, the README names every room."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
STOREYS = [
    {"pipeline", "pipeline.errors"},
    {"pipeline.types", "pipeline.checks", "pipeline.progress"},
    {"classifiers", "classifiers.attributes", "pipeline.pictures"},
    {"prompt_sets.prompts", "prompt_sets.references", "pipeline.estimates", "pipeline.energy", "pipeline.chat"},
    {"prompt_sets"},
    {"pipeline.mitigations"},
    {"pipeline.study"},
    {"pipeline.plan", "pipeline.store"},
    {"classifiers.confusion"},
    {
        "classifiers.correction",
        "classifiers.skin_tone",
        "classifiers.clip",
        "classifiers.fake",
        "classifiers.labelled",
        "pipeline.generate",
        "pipeline.album",
    },
    {"classifiers.probe", "classifiers.faces", "pipeline.mixed_model"},
    {"classifiers.zero_shot", "classifiers.calibration", "classifiers.evaluation", "classifiers.linear"},
    {"classifiers.prototypes"},
    {"pipeline.amplification"},
    {"pipeline.robustness"},
    {"pipeline.stages", "pipeline.tables", "pipeline.pairs", "pipeline.simulation"},
    {"pipeline.changes", "pipeline.distances", "pipeline.labels", "pipeline.wordings"},
    {
        "pipeline.summary",
        "pipeline.figures",
        "pipeline.compare",
        "pipeline.effects",
        "pipeline.precision",
        "pipeline.validate",
    },
    {"pipeline.imports", "pipeline.probes"},
    {"pipeline.report"},
    {"pipeline.line"},
    {"pipeline.explain"},
    {"pipeline.engines", "pipeline.engines.local", "pipeline.engines.slurm", "pipeline.engines.ray"},
    {"pipeline.cli"},
]
"""From the ground up; what stands on one storey may import what is below it, and its neighbours if they are rooms
of one kind (`energy` writes through `store`)."""
ALLOWED = {("pipeline.energy", "pipeline.store"), ("prompt_sets.references", "prompt_sets.prompts")}
DOORS = {
    "torch": {"pipeline.generate", "pipeline.chat", "classifiers.clip", "classifiers.faces"},
    "transformers": {"pipeline.generate", "pipeline.chat"},
    "diffusers": {"pipeline.generate"},
    "open_clip": {"classifiers.clip"},
    "sklearn": {"classifiers.linear"},
    "datasets": {"classifiers.labelled"},
    "matplotlib": {"pipeline.figures"},
    "jinja2": {"pipeline.report"},
    "nltk": {"pipeline.labels"},
    "skimage": {"classifiers.skin_tone"},
    "codecarbon": {"pipeline.energy"},
    "accelerate": {"pipeline.engines.local"},
    "submitit": {"pipeline.engines.slurm"},
    "ray": {"pipeline.engines.ray"},
    "pydantic": {
        "pipeline.checks",
        "pipeline.mitigations",
        "pipeline.study",
        "prompt_sets.prompts",
        "prompt_sets.references",
    },
    "pickle": set(),
}


def modules() -> dict[str, Path]:
    rooms = ("pipeline", "pipeline/engines", "classifiers", "prompt_sets")
    files = [p for room in rooms for p in sorted((HOME / room).glob("*.py"))]
    return {".".join(p.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__"): p for p in files}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            rooms = inner & set(modules())
            names |= rooms or {node.module}
    return names


HEIGHT = {name: height for height, storey in enumerate(STOREYS) for name in storey}


def test_every_room_has_a_storey() -> None:
    assert set(modules()) == set(HEIGHT)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_go_one_way(name: str) -> None:
    for other in imported(modules()[name]) & set(HEIGHT):
        assert HEIGHT[other] < HEIGHT[name] or (name, other) in ALLOWED, f"{name} imports {other}"


@pytest.mark.parametrize("library", sorted(DOORS))
def test_a_heavy_library_comes_in_by_its_door(library: str) -> None:
    users = {n for n, path in modules().items() if any(i.split(".")[0] == library for i in imported(path))}
    assert users <= DOORS[library]


def test_a_plan_needs_no_torch() -> None:
    code = "import sys; from pipeline import study, plan, store; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HOME)


def test_the_map_in_the_readme_names_every_module() -> None:
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    rooms = [p.relative_to(HOME).as_posix() for p in modules().values() if p.name != "__init__.py"]
    scripts = [p.relative_to(HOME).as_posix() for p in (HOME / "scripts").glob("*.py") if p.name != "__init__.py"]
    assert [room for room in rooms + scripts if f"`{room}`" not in readme] == []


def test_the_commands_in_the_readme_exist() -> None:
    from pipeline.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {str(group.name) for group in app.registered_groups}
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    named = {line.split()[1] for line in readme.splitlines() if line.startswith("typecast ")}
    assert named and named <= known
    assert {name for name in known if f"typecast {name}" not in readme} == set()


def test_no_tracked_file_names_this_machine() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.yaml", "*.toml", "*.txt", "Makefile"],
        cwd=HOME,
        capture_output=True,
        text=True,
    )
    for name in tracked.stdout.split():
        assert "/wo" + "rk/" not in (HOME / name).read_text(encoding="utf-8"), name


def test_nothing_reads_a_pickle_or_runs_code_of_a_model() -> None:
    """What would: torch.load, numpy with allow_pickle, joblib and its like, trust_remote_code, eval and exec."""
    for path in [*modules().values(), *sorted((HOME / "scripts").glob("*.py"))]:
        assert not imported(path) & {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}, path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
                assert ast.unparse(node.value) == "False", f"{path}:{node.value.lineno}"
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "torch.load", "torch.jit.load"), f"{path}:{node.lineno}"
