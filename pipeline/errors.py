"""What can go wrong for a user, and what no message of it may hold.

    TypecastError          one clear message, exit code 2
    ├── InputError         a study, prompt set, table or option that says something wrong
    ├── ModelError         a checkpoint that is missing, gated, unfit or not safe to load
    └── RunError           a run folder that belongs to another study, or cannot be read

A failed image is none of these: it is a row of the run.
"""

import os
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

SECRET = re.compile(
    r"(?:hf|api_org)_\w*?[A-Za-z0-9]{20}[\w.-]*|(?<=://)[^/\s@]+(?=@)|(?<=bearer )[\w.~+/-]{20,}=*"
    r"|(?<=token=)[^\s&\"']+|(?<=signature=)[^\s&\"']+",
    re.IGNORECASE,
)
"""A token of the hub, what stands before the @ of an address, a header, and what an address is signed with."""

FULL = re.compile(
    r"out of memory|can't allocate memory|CU\w+_STATUS_\w*ALLOC\w*_FAILED|unable to find an engine", re.IGNORECASE
)
"""What CUDA, cuBLAS, cuDNN and torch's allocator on a CPU say when the memory is full; torch tries cuDNN's
engines until one has room to work."""

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Where the hub's client looks for the user's token: whatever it looks like, it is one."""


class Interrupted(SystemExit):
    """Ctrl-C or SIGTERM, wherever the command was: nobody's mistake, and not to be caught."""


class TypecastError(Exception):
    """A message for the user: it names the file, the key and the right answers."""


class InputError(TypecastError):
    """What the user wrote cannot be meant."""


class ModelError(TypecastError):
    """A model cannot be loaded or cannot do what the study asks."""


class RunError(TypecastError):
    """A run folder cannot be continued or read."""


def one_of(name: object, known: Iterable[str], *, where: str) -> str:
    """`name` if it is one of `known`, else an `InputError` that lists them all."""
    names = sorted(known)
    if name not in names:
        raise InputError(f"{where}: {name!r} is not known; the choices are: {', '.join(names)}")
    return str(name)


def without_secrets(text: str) -> str:
    """A text that may be shown or kept: `…` in place of a token of the hub or a password in an address."""
    for token in (os.environ.get(name, "").strip() for name in TOKENS):
        if token:
            text = text.replace(token, "…")
    return SECRET.sub("…", text)


class _Filtered:
    """A stream that is given no secret; in all else it is the one within."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """The text without them."""
        return self._stream.write(without_secrets(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def keep_secrets() -> None:
    """From now on the standard error has none: there warnings, tracebacks of threads and other libraries' logs end up,
    which no one of us has written, and a cluster keeps it."""
    if not isinstance(sys.stderr, _Filtered):
        sys.stderr = cast(TextIO, _Filtered(sys.stderr))


def of_the_device(error: BaseException) -> bool:
    """Is this trouble of the machine and not of what was asked: no memory left, or a GPU that answers no more?"""
    torch = sys.modules.get("torch")  # what did not load it can have no trouble with its devices
    dead = torch is not None and isinstance(error, torch.AcceleratorError)
    return dead or isinstance(error, MemoryError) or out_of_memory(error)


def out_of_memory(error: BaseException) -> bool:
    """Is the memory of torch's device full? Libraries below it say so in words alone."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and bool(FULL.search(str(error)))
    )
