"""The Ray engine, on a real cluster of two nodes on this machine."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import line, stages
from pipeline.engines import ray as engine
from pipeline.errors import InputError, ModelError, RunError, TypecastError
from pipeline.types import Shard
from tests.test_cli import HOME
from tests.test_engines import ENVIRONMENT, alone, begun, done, modelled, threads_of, until

pytest.importorskip("ray", reason="Ray is not installed: pip install -c constraints.txt -e '.[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

DRIVE = "import sys; from pathlib import Path; from pipeline import line; from pipeline.engines import ray;" + (
    "ray.generate(line.resume(Path(sys.argv[1])), None)"
)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One node, to which a test adds another. What is started later has this environment."""
    for key, value in {"PYTHONPATH": str(HOME), "RAY_USAGE_STATS_ENABLED": "0", engine.ALONE: "0"}.items():
        monkeypatch.setenv(key, value)
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield started
    started.shutdown()


def first(folder: Path, mark: str, times: int) -> bool:
    """Is this one of the first so many times that a process of the cluster asks?"""
    marks = [*folder.glob(f"{mark}-*")]
    (folder / f"{mark}-{len(marks)}").touch()
    return len(marks) < times


class Trouble(engine.Drawer):
    """Cannot draw the second shard; dies over the third, oftener than it may fail; fails as often as it may at the fourth."""

    def do(self, shard: Shard) -> None:
        folder = self.opened[0].folder
        if shard.start == 512:
            raise RuntimeError("no such brush")
        if shard.start == 1024 and first(folder, "died", engine.RETRIES + 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if shard.start == 1536 and first(folder, "failed", engine.RETRIES):
            raise RuntimeError("the brush fell")
        super().do(shard)


class Blinking(engine.Reader):
    """Fails once at the shard that was hard to draw."""

    def do(self, shard: Shard) -> None:
        if shard.start == 1536 and first(self.opened[0].folder, "blinked", 1):
            raise RuntimeError("blinked")
        super().do(shard)


class Unready(engine.Drawer):
    """Has no room for its model."""

    def ready(self) -> None:
        raise RuntimeError("no room in the device")


class Unmade(engine.Reader):
    """Cannot be made at all: its node does not see the folder."""

    def __init__(self, folder: str, *, meters: bool) -> None:
        super().__init__(folder + "-elsewhere", meters=meters)


class Dead(engine.Drawer):
    """Its first process has a GPU that answers no more."""

    def do(self, shard: Shard) -> None:
        import torch

        self.dead = getattr(self, "dead", False) or first(self.opened[0].folder, "dead", 1)
        if self.dead:
            raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")
        super().do(shard)


class Spilling(engine.Reader):
    """Spills something over the first shard before it reads it."""

    def do(self, shard: Shard) -> None:
        run = self.opened[0]
        if shard.start == 0 and first(run.folder, "spilt", 1):
            run.images(shard).write_bytes(b"spilt")
        super().do(shard)


class Waiting(engine.Drawer):
    """On the node that will be lost, never gets on with the shard that it is given."""

    def do(self, shard: Shard) -> None:
        import ray

        folder = self.opened[0].folder
        if ray.get_runtime_context().get_node_id() == (folder / "lost").read_text():
            (folder / "busy").touch()
            time.sleep(600)
        super().do(shard)


def test_a_lost_node_loses_nothing(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = cluster.add_node(num_cpus=1)
    opened = begun(tmp_path / "run", 500)
    run, _, planned = opened
    (run.folder / "lost").write_text(lost.node_id)
    monkeypatch.setattr(engine, "Drawer", Waiting)

    def kill() -> None:
        until(lambda: (run.folder / "busy").exists() and any(run.images(shard).exists() for shard in planned.shards()))
        lost.kill_all_processes(check_alive=False, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    engine.generate(opened, cluster.address)
    killer.join()
    assert "its process or its node was lost; tried again" in capsys.readouterr().err
    assert done(opened) == alone(tmp_path / "alone", 500)
    assert line.status(opened)["failed"] == 0


def test_a_model_draws_the_same_on_a_cluster(cluster: Any, tmp_path: Path) -> None:
    """Ray gives a process one thread for one processor; the study says two."""
    undisturbed, opened = modelled(tmp_path)
    engine.generate(opened, cluster.address)
    assert done(opened) == done(undisturbed) and threads_of(opened) == {"2"}


def test_a_shard_that_fails_is_tried_again_and_then_recorded(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "Drawer", Trouble)
    monkeypatch.setattr(engine, "Reader", Blinking)
    opened = begun(tmp_path / "run", 100)
    engine.generate(opened, cluster.address)
    said = capsys.readouterr().err
    assert said.count("no such brush; tried again") == said.count("the brush fell; tried again") == engine.RETRIES
    assert said.count("its process or its node was lost; tried again") == engine.RETRIES + 1
    assert "recorded as failed after 3 attempts" in said and "blinked; tried again" in said
    found = line.status(opened)
    assert (found["failed"], found["made"]) == (512, 2000 - 512)
    assert found["reasons"] == {"failed: RuntimeError: no such brush (3 attempts)": 512}
    assert found["shards_perceived"] == 4
    failed = {unit.id for unit in opened[2].units(opened[2].shards()[1])}
    wanted = {row for row in alone(tmp_path / "alone", 100) if row[0] not in failed}
    assert {row for row in done(opened) if row[0] not in failed} == wanted


def test_a_dead_gpu_is_left_behind_and_a_damaged_shard_drawn_again(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "Drawer", Dead)
    monkeypatch.setattr(engine, "Reader", Spilling)
    opened = begun(tmp_path / "run", 100)
    engine.generate(opened, cluster.address)
    said = capsys.readouterr().err
    assert said.count("AcceleratorError: CUDA error: uncorrectable ECC error encountered; tried again") == 1
    assert said.count("was damaged, and is set aside; tried again") == 1
    assert done(opened) == alone(tmp_path / "alone", 100)
    assert line.status(opened)["failed"] == 0


@dataclass(frozen=True, eq=False)
class Answer:
    """What an actor promises: when it comes, and what it raises."""

    at: float
    error: Exception | None


class Acts:
    """An actor that answers after so many seconds of a clock that nobody waits for, or raises at every shard."""

    def __init__(self, clock: list[float], seconds: float, error: Exception | None = None) -> None:
        def answers(after: float, what: Exception | None = None) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda *_: Answer(clock[0] + after, what))

        self.do, self.ready, self.close = answers(seconds, error), answers(0.01), answers(0.0)


def driven(
    monkeypatch: pytest.MonkeyPatch, drawers: list[Callable[[list[float]], Acts]]
) -> tuple[list[str], list[str]]:
    """Forty shards through the driver, with these drawers and good readers: those recorded as failed, and those read."""
    import ray

    clock, failed, read = [0.0], list[str](), list[str]()

    def wait(answers: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        soonest = min(answers, key=lambda answer: answer.at)
        clock[0] = max(clock[0], soonest.at)
        return [soonest], []

    def get(answer: Any) -> None:
        if answer.error:
            raise ray.exceptions.RayTaskError("do", "", answer.error)

    pairs = iter([(made(clock), Acts(clock, 5)) for made in drawers])
    monkeypatch.setattr(engine, "REST", 0.0)
    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", lambda *_, **__: None)
    monkeypatch.setattr(engine, "_started", lambda *_: next(pairs))
    monkeypatch.setattr(stages, "fail", lambda run, planned, shard, why: failed.append(shard.name))
    shards = [Shard(arm="none", start=i, stop=i + 1) for i in range(40)]
    run: Any = SimpleNamespace(folder=Path("run"))
    planned: Any = None
    it = engine._Line(run, planned, deque(shards), deque(), lambda n, _: read.append("a shard"))
    it.work([{}] * len(drawers), 1)
    return failed, read


def dead_gpu() -> Exception:
    import torch

    return torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")


@pytest.mark.parametrize("error", [dead_gpu(), OSError(errno.ESTALE, "Stale file handle"), MemoryError("full")])
def test_a_place_that_fails_at_once_does_not_go_through_the_queue(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is given fails in a hundredth of a second, and the others take fifty."""
    drawers = [lambda clock: Acts(clock, 50), *[lambda clock: Acts(clock, 0.01, error)] * 3]
    failed, read = driven(monkeypatch, drawers)
    assert failed == [] and len(read) == 40
    said = capsys.readouterr().err
    assert said.count("tried again") == 3 * (engine.RETRIES + 1)
    assert said.count(f"cannot go on: {type(error).__name__}") == said.count("left out") == 3


def test_a_shard_that_fails_at_once_is_no_fault_of_the_drawer(monkeypatch: pytest.MonkeyPatch) -> None:
    failed, read = driven(monkeypatch, [lambda clock: Acts(clock, 1, RuntimeError("no such brush"))])
    assert len(failed) == len(read) == 40


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (dead_gpu(), "cannot go on: AcceleratorError: CUDA error: .* None is left; finished shards are kept"),
        (OSError(errno.EACCES, "Permission denied"), "cannot go on: PermissionError: .* None is left"),
        (ModelError("no such model"), "^no such model$"),
        (OSError(errno.ENOSPC, "No space left on device"), "^.Errno 28. No space left on device$"),
    ],
)
def test_what_every_place_would_have_ends_the_run(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((TypecastError, OSError), match=said):
        driven(monkeypatch, [lambda clock: Acts(clock, 1, error)] * 2)


def test_a_shard_that_a_reader_cannot_see_is_not_taken_for_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LATE", 0.0)
    opened = begun(tmp_path / "run")
    reader = engine.Reader(str(tmp_path / "run"), meters=False)
    with pytest.raises(OSError, match=r"parquet cannot be seen on"):
        reader.do(opened[2].shards()[0])


def test_actors_that_cannot_begin_end_the_run_with_the_reason(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "REST", 0.1)
    opened = begun(tmp_path / "run")
    with monkeypatch.context() as changed, pytest.raises(RunError, match=r"cannot begin: RuntimeError: no room in the"):
        changed.setattr(engine, "Drawer", Unready)
        engine.generate(opened, cluster.address)
    with monkeypatch.context() as changed, pytest.raises(RunError, match=r"cannot begin: .*no run here"):
        changed.setattr(engine, "Reader", Unmade)
        engine.generate(opened, cluster.address)


def test_a_cluster_that_is_started_here_listens_on_the_loopback_and_ends_with_its_driver(tmp_path: Path) -> None:
    opened = begun(tmp_path / "run", 500)
    run, _, planned = opened
    driver = subprocess.Popen([sys.executable, "-c", DRIVE, str(run.folder)], env=ENVIRONMENT, start_new_session=True)
    until(lambda: any(run.images(shard).exists() for shard in planned.shards()))
    family = descendants(driver.pid)
    heard = [address for pid in family for address in listening(pid)]
    assert len(heard) > 4 and {address.rpartition(":")[0] for address in heard} == {"127.0.0.1"}
    driver.kill()
    driver.wait()
    until(lambda: not any(listening(pid) for pid in family), 180)  # an agent of Ray's notices after a minute
    assert stages.finished(run, planned.shards()) < len(planned)
    line.generate(opened, perceive=True)
    assert done(opened) == alone(tmp_path / "alone", 500)


@pytest.mark.parametrize("address", ["127.0.0.1:1", ""])
def test_no_cluster_at_the_address_is_one_message(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="no Ray cluster answers"):
        engine.generate(begun(tmp_path / "run"), address)


@pytest.mark.parametrize(
    ("resources", "threads", "held"),
    [
        ([{"CPU": 64, "GPU": 8}, {"CPU": 32}], 2, {("CPU", 1, "GPU", 1): 8}),
        ([{"CPU": 4}, {"CPU": 2}], 2, {("CPU", 2): 3}),
        ([{"CPU": 1}], 4, {("CPU", 1): 1}),
        ([{}], 1, {}),
    ],
)
def test_a_pair_of_actors_per_gpu_or_per_threads(
    resources: list[dict[str, float]], threads: int, held: dict[tuple[object, ...], int]
) -> None:
    nodes = [{"Alive": True, "Resources": one} for one in resources]
    pairs = engine.pairs_for([*nodes, {"Alive": False, "Resources": {"GPU": 9}}], threads)
    assert Counter(tuple(x for pair in sorted(p.items()) for x in pair) for p in pairs) == held


def descendants(pid: int) -> set[int]:
    """A process and all that it has started, and they in turn."""
    told = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (row.split() for row in told.splitlines())}
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def listening(pid: int) -> list[str]:
    """The addresses on which a process listens, `127.0.0.1:6379`."""
    import psutil

    try:
        sockets = psutil.Process(pid).net_connections("inet")
    except psutil.Error:
        return []
    return [f"{s.laddr.ip.removeprefix('::ffff:')}:{s.laddr.port}" for s in sockets if s.status == psutil.CONN_LISTEN]
