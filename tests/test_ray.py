"""The Ray engine, on a real cluster of two nodes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import line, stages
from pipeline.engines import ray as engine
from pipeline.errors import InputError, RunError
from pipeline.types import Shard
from tests.test_cli import HOME
from tests.test_engines import ENVIRONMENT, alone, begun, done, modelled, threads_of, until

pytest.importorskip("ray", reason="Ray is not installed: pip install 'typecast[ray]'")
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

    def __init__(self, folder: str) -> None:
        super().__init__(folder + "-elsewhere")


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


def test_no_cluster_at_the_address_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Ray cluster answers"):
        engine.generate(begun(tmp_path / "run"), "127.0.0.1:1")


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
