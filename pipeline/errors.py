"""What can go wrong for a user, and what no message of it may hold.

    TypecastError          one clear message, exit code 2
    ├── InputError         a study, prompt set, table or option that says something wrong
    ├── ModelError         a checkpoint that is missing, gated, unfit or not safe to load
    └── RunError           a run folder that belongs to another study, or cannot be read

A failed image is none of these: it is a row of the run.
"""

import re
from collections.abc import Iterable

SECRET = re.compile(r"hf_\w*?[A-Za-z0-9]{20}[\w.-]*|(?<=://)[^/\s@]+(?=@)|(?<=Bearer )[\w.~+/-]{20,}=*")
"""A token of the hub, what stands before the @ of an address, a header."""


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
    return SECRET.sub("…", text)
