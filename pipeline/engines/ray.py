"""A Ray cluster: shards go to whoever is free, and to another when a node is lost.

Each GPU has a drawer and a reader, two actors that hand each other shards through the run folder, as the stages do.
The driver, here, knows what each of them is busy with.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import line, stages
from pipeline.energy import metered
from pipeline.errors import InputError, RunError, TypecastError, keep_secrets, of_the_device, without_secrets
from pipeline.line import Opened
from pipeline.plan import Plan
from pipeline.progress import progress
from pipeline.store import Run
from pipeline.types import Shard

RETRIES = 2
"""How often a shard is tried again before its images are recorded as failed; and an actor that cannot make itself ready,
or whose device or file system fails it, before it is left out."""

LOSSES = 10
"""How often a process, a device or a node may be lost over a shard: mostly it is no fault of the shard's, but some kill
what draws them."""

REST = 1.0
"""Seconds before an actor whose process was lost is asked again."""

AHEAD = 2
"""Shards that may lie drawn and unread, per reader, before the drawers wait."""

PATIENCE = 60.0
"""Seconds without any answer after which the user is told what is waited for."""

LATE = 20.0
"""Seconds that a network file system may take to show what another node has written."""

EVERYWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of the file system that every node would have, since all of them write to one folder."""

ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Environment variable by which Ray decides whether other machines may join. With 0, everything listens on the
loopback; an address of the loopback alone is replaced by one that the network sees."""


def generate(opened: Opened, address: str | None) -> None:
    """Draw and perceive what is missing, on the cluster at `address`, or on one that is started here for this."""
    run, study, planned = opened
    name = study.perceive.name
    shards = planned.shards()
    undrawn = [shard for shard in shards if not stages.drawn(run, planned, shard)]
    unread = [shard for shard in shards if shard not in undrawn and not stages.perceived(run, name, shard)]
    if not undrawn and not unread:
        return
    total = len(planned)
    with (
        stages.drawing(run, study),
        _connected(address) as nodes,
        progress("drawing", total=total, done=total - stages.images_in([*undrawn, *unread])) as advance,
    ):
        pairs, left = pairs_for(nodes, study.draw.threads), len(undrawn) + len(unread)
        stages.say_who_is_idle(left, len(pairs))
        _Line(run, planned, deque(undrawn), deque(unread), advance).work(pairs[:left], study.draw.threads)


def pairs_for(nodes: Sequence[dict[str, Any]], threads: int) -> list[dict[str, float]]:
    """What each pair of a drawer and a reader holds of `ray.nodes()`: a GPU; in a cluster without any, `threads` CPUs."""
    held = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(resources.get("GPU", 0)) for resources in held)
    if gpus:
        return [{"GPU": 1, "CPU": 1}] * gpus
    cpus = [int(resources.get("CPU", 0)) for resources in held]
    return [{"CPU": min(threads, n)} for n in cpus if n for _ in range(max(1, n // threads))]


def _processors() -> int:
    """Those that this process may use: Ray would count all of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[list[dict[str, Any]]]:
    """The nodes of the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about a study goes anywhere
    if address is None:
        os.environ[ALONE] = "0"  # Ray looks when it is imported
    try:
        import ray
    except ImportError:
        raise InputError(
            "--engine ray: Ray is not installed; install it in Typecast's checkout with: "
            "pip install -c constraints.txt -e '.[ray]'"
        ) from None
    here = {"address": "local", "include_dashboard": False, "num_cpus": _processors()}
    where = here if address is None else {"address": address}
    ended = signal.getsignal(signal.SIGTERM)
    try:
        if address is not None and address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray would try for minutes
        ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"--address {address}: no Ray cluster answers ({said}); it is HOST:PORT, or auto") from None
    finally:
        signal.signal(signal.SIGTERM, ended)  # Ray has put its own in its place
    try:
        yield ray.nodes()
    finally:
        ray.shutdown()


# -- the actors --------------------------------------------------------------------------------------


class _Actor:
    """One process of the cluster, with one model open."""

    def __init__(self, folder: str, *, meters: bool) -> None:
        keep_secrets()
        self.opened = line.resume(Path(folder))
        self.written: list[int] = []
        self.closing = contextlib.ExitStack()
        if meters:
            self.closing.enter_context(metered(Path(folder), images=lambda: sum(self.written), shared=True))

    def close(self) -> None:
        """Write down what was used."""
        self.closing.close()


class Drawer(_Actor):
    """Draws shards."""

    @functools.cached_property
    def generator(self) -> Any:
        """The model that draws."""
        _, study, planned = self.opened
        return line.open_generator(study, planned)

    def ready(self) -> None:
        """Open the model."""
        _ = self.generator

    def do(self, shard: Shard) -> None:
        """Draw one shard."""
        run, _, planned = self.opened
        stages.draw(run, planned, lambda: self.generator, shards=[shard], written=self.written)


class Reader(_Actor):
    """Perceives shards."""

    @functools.cached_property
    def perceiver(self) -> Any:
        """The model that reads."""
        run, study, _ = self.opened
        return line.noted(run, study, line.open_perceiver(study))

    def ready(self) -> None:
        """Open the model."""
        _ = self.perceiver

    def do(self, shard: Shard) -> None:
        """Read one shard. One whose pictures are damaged is `Damaged`; one that cannot be seen from here, an `OSError`."""
        run, _, planned = self.opened
        name = self.perceiver.name
        if stages.perceive(run, planned, lambda: self.perceiver, name, shards=[shard]):
            raise Damaged("was damaged, and is set aside")
        if not run.perceptions(name, shard).exists():
            time.sleep(LATE)
            raise OSError(f"{run.images(shard)} cannot be seen on {socket.gethostname()}")


class Damaged(Exception):
    """A shard that must be drawn again."""


def _started(bundle: dict[str, float], folder: Path, threads: int) -> tuple[Any, Any]:
    """A drawer and a reader that share what the bundle holds. Ray starts them again elsewhere if their node is lost."""
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    # the bytes depend on the number of threads, and Ray would set it to the CPUs that an actor holds
    environment = {"env_vars": {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}}
    options = {
        "num_cpus": 0,
        "num_gpus": bundle.get("GPU", 0) / 2,
        "max_restarts": -1,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(placement_group([bundle])),
        "runtime_env": environment,
    }
    # both are on one GPU, whose meter counts all that it uses
    meters = {Drawer: True, Reader: "GPU" not in bundle}
    drawer, reader = (
        ray.remote(kind).options(**options).remote(str(folder), meters=meter) for kind, meter in meters.items()
    )
    return drawer, reader


# -- the driver --------------------------------------------------------------------------------------


class Trouble(NamedTuple):
    """Why there was no answer."""

    said: str
    lost: bool
    """Was a process, a device or a node lost, rather than something raised?"""
    more: str = ""
    """What Ray says of the loss."""
    restarting: bool = False
    """Is Ray about to start it again, which may take as long as it takes?"""
    of_the_place: bool = False
    """Is it of the device or the file system of an actor, and of no shard? It would fail at each as quickly as at the
    last, and go through all of them."""
    undrawn: bool = False
    """Must the shard be drawn again?"""


def _first_line(text: str) -> str:
    return without_secrets((text.strip().splitlines() or [""])[0])


def _last_line(text: str) -> str:
    """Of an actor that could not be made, the end is what went wrong in it."""
    return without_secrets((text.strip().splitlines() or [""])[-1])


@dataclass
class _Line:
    """What is still to be drawn and read, and who is busy with what."""

    run: Run
    planned: Plan
    undrawn: deque[Shard]
    unread: deque[Shard]
    advance: Any
    attempts: Counter[Any] = field(default_factory=Counter)
    """Of a shard, since it was last drawn or begun; of an actor, since it last finished a shard."""
    losses: Counter[Any] = field(default_factory=Counter)
    """The same, of processes, devices and nodes; of a shard, until it is read."""
    busy: dict[Any, tuple[Any, Shard | None]] = field(default_factory=dict)
    """The answer that is waited for, to who gives it and on which shard; without one, it is making itself ready."""

    def work(self, bundles: Sequence[dict[str, float]], threads: int) -> None:
        """Until everything is drawn and read."""
        import ray

        pairs = [_started(bundle, self.run.folder.resolve(), threads) for bundle in bundles]
        self.drawers, self.readers = ([pair[i] for pair in pairs] for i in (0, 1))
        for actor in (*self.drawers, *self.readers):
            self._ask(actor, None)
        free: deque[Any] = deque()
        left = len(self.undrawn) + len(self.unread)
        while left:
            for _ in range(len(free)):
                actor = free.popleft()
                shard = self._next(actor)
                if shard:
                    self._ask(actor, shard)
                else:
                    free.append(actor)
            answers, _ = ray.wait(list(self.busy), timeout=PATIENCE)
            if not answers:
                self._say_what_is_waited_for()
            for answer in answers:
                actor, shard = self.busy.pop(answer)
                trouble = self._trouble(answer)
                if trouble is not None:
                    if trouble.of_the_place:
                        ray.kill(actor, no_restart=False)  # another process may have a better one
                    if shard:
                        self._again(actor, shard, trouble)
                    if shard and not trouble.of_the_place:
                        self._ask(actor, None)  # answers when it has been started again
                    else:
                        self._not_ready(actor, trouble)
                    continue
                free.append(actor)
                if not shard:
                    continue
                self.attempts.pop(shard, None)  # reading has attempts of its own
                self.attempts.pop(actor, None)
                self.losses.pop(actor, None)
                if actor in self.readers:
                    self.losses.pop(shard, None)
                    left -= 1
                    self.advance(shard.stop - shard.start, "")
                else:
                    self.unread.append(shard)
        closed = [actor.close.remote() for actor in free]
        ray.wait(closed, num_returns=len(closed), timeout=PATIENCE)

    def _next(self, actor: Any) -> Shard | None:
        """The next shard for an actor that is free. Drawers wait while the readers are behind."""
        if actor in self.readers:
            return self.unread.popleft() if self.unread else None
        behind = len(self.unread) >= AHEAD * len(self.readers)
        return self.undrawn.popleft() if self.undrawn and not behind else None

    def _ask(self, actor: Any, shard: Shard | None) -> None:
        answer = actor.do.remote(shard) if shard else actor.ready.remote()
        self.busy[answer] = actor, shard

    def _trouble(self, answer: Any) -> Trouble | None:
        """Why there is no answer, or `None` if there is one. What the user must see to is raised."""
        import ray

        try:
            ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, TypecastError) or (isinstance(cause, OSError) and cause.errno in EVERYWHERE):
                raise cause from None
            damaged, dead = isinstance(cause, Damaged), of_the_device(cause)
            return Trouble(
                _first_line(str(cause) if damaged else f"{type(cause).__name__}: {cause}"),
                lost=damaged or dead,
                of_the_place=dead or isinstance(cause, OSError),
                undrawn=damaged,
            )
        except ray.exceptions.RayActorError as error:
            again = isinstance(error, ray.exceptions.ActorUnavailableError)
            return Trouble("its process or its node was lost", lost=True, more=_last_line(str(error)), restarting=again)
        except ray.exceptions.RayError as error:
            return Trouble(_first_line(f"{type(error).__name__}: {error}"), lost=False)
        return None

    def _again(self, actor: Any, shard: Shard, trouble: Trouble) -> None:
        """Back into the queue, for whoever is free; after so many times the images are recorded as failed.

        What a file system does is held against the actor alone: the shard is as good as before.
        """
        queue = self.unread if actor in self.readers and not trouble.undrawn else self.undrawn
        if (trouble.of_the_place and not trouble.lost) or not self._hopeless(shard, lost=trouble.lost):
            stages.say(f"{shard.name}: {trouble.said}; tried again")
            queue.append(shard)
            return
        attempts = self.attempts.pop(shard, 0) + self.losses.pop(shard, 0)
        if queue is self.unread:
            raise RunError(f"{shard.name}: cannot be perceived, after {attempts} attempts: {trouble.said}")
        stages.say(f"{shard.name}: {trouble.said}; recorded as failed after {attempts} attempts")
        stages.fail(self.run, self.planned, shard, f"{trouble.said} ({attempts} attempts)")
        self.unread.append(shard)

    def _not_ready(self, actor: Any, trouble: Trouble) -> None:
        """Ask an actor once more; leave it out after so many times, and stop where none of its kind is left."""
        import ray

        lost = trouble.lost and not trouble.of_the_place
        if trouble.restarting or not self._hopeless(actor, lost=lost):
            if trouble.lost or trouble.of_the_place:
                time.sleep(REST)  # so that the process that was killed does not answer once more
            self._ask(actor, None)
            return
        kind = self.readers if actor in self.readers else self.drawers
        kind.remove(actor)
        ray.kill(actor)
        cannot = f"{'reads' if kind is self.readers else 'draws'} cannot {'go on' if trouble.of_the_place else 'begin'}"
        said = f"one that {cannot}: {trouble.said} {trouble.more}".strip()
        if not kind:
            raise RunError(f"{said}. None is left; finished shards are kept, and the same command continues")
        stages.say(f"{said}; left out")

    def _hopeless(self, what: Any, *, lost: bool) -> bool:
        """Count one more trouble over a shard or an actor: are these too many?"""
        counted, most = (self.losses, LOSSES) if lost else (self.attempts, RETRIES)
        counted[what] += 1
        return counted[what] > most

    def _say_what_is_waited_for(self) -> None:
        shards = sorted(shard.name for _, shard in self.busy.values() if shard)
        if shards:
            return
        stages.say(f"waiting for the cluster: none of {len(self.busy)} actors is ready (see: ray status)")
