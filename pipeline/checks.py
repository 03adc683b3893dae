"""What a user wrote in YAML or CSV, read strictly; and a pydantic failure as one message to act on: file, key, right answers.

Stands before everything else in the line: studies, prompt sets and source tables are read through here.
"""

from __future__ import annotations

import csv
import io
import re
import reprlib
from collections.abc import Hashable, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.errors import InputError

Problems = dict[str, list[int]]
"""What is wrong in a CSV file, and the numbers of the lines in which it is."""

MOST_PROBLEMS = 8
"""How many problems of one file a message lists before it only counts them."""

EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "string_too_short": "text that is not empty",
    "too_short": "a list that is not empty",
}
"""Kinds of pydantic errors, in the words of YAML."""

_PLAIN_YAML_ERRORS = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What PyYAML lets through for a value such as `2020-13-45`, `!!int ""` or a thousand open brackets."""

_found = reprlib.Repr()
_found.maxstring = _found.maxother = 60


# -- reading -----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without what would silently lose or multiply what a user wrote."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: a few of them can stand for gigabytes, and no file here needs one."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # no stub for this one
            raise yaml.MarkedYAMLError(problem="a * alias is not used here: write the value out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that is there twice (PyYAML keeps the last one) and a key that is no text."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"the key {key_node.value!r} is read as {_name_of(key)}: put it in quotes"
            elif key in seen:
                problem = f"the key {key!r} is there twice"
            else:
                seen.add(key)
                continue
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping that a YAML file holds; anything else is an `InputError` with the file and the line."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line}: not UTF-8 text; save the file as UTF-8") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: {_syntax(error)}") from None
    except _PLAIN_YAML_ERRORS as error:
        raise InputError(f"{path}: cannot be read as YAML: {str(error) or type(error).__name__}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {_name_of(content)}; it should hold a mapping (key: value)")
    return content


def _syntax(error: yaml.YAMLError) -> str:
    """Line, and what is wrong there."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    line = f"line {mark.line + 1}: " if mark else ""
    return f"{line}{problem}"


def _name_of(value: object) -> str:
    """What YAML made of something, in words."""
    words = {NoneType: "nothing", bool: str(value).lower(), list: "a list", str: "text", dict: "a mapping"}
    return words.get(type(value)) or (f"the number {value}" if isinstance(value, int | float) else type(value).__name__)


def csv_lines(
    path: Path, content: bytes, needed: Iterable[tuple[str, str]] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a CSV file with their numbers, once its columns are known to be there; an empty line is none.

    `needed` are columns, each with what names it for the user (a key of a study), or nothing. A byte-order mark is no
    part of a name.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {number}: not UTF-8 text; save the file as CSV in UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        head = next(reader, [])
        if len(set(head)) < len(head):
            raise InputError(f"{path}: two columns have the same name: {', '.join(head)}")
        lacking = [f"{column!r}{f' ({key})' if key else ''}" for column, key in needed if column not in head]
        if lacking:
            raise InputError(
                f"{path}: has no column {', '.join(lacking)}; its columns are: {', '.join(head) or 'none'}"
            )
        for cells in reader:
            if cells and len(cells) != len(head):
                raise InputError(
                    f"{path}: line {reader.line_num}: {len(cells)} cells, and the first line has {len(head)}"
                )
            if cells:
                yield reader.line_num, dict(zip(head, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from None


def all_wrong(path: Path, wrong: Problems, most: int = MOST_PROBLEMS) -> InputError:
    """One message: each problem once, with its lines, the first `most` of them."""
    said = []
    for problem, numbers in list(wrong.items())[:most]:
        some = ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
        said.append(f"{path}: line{'s' if len(numbers) > 1 else ''} {some}: {problem}")
    if len(wrong) > most:
        said.append(f"{path}: and {len(wrong) - most} more")
    return InputError("\n".join(said))


def set_by_path(raw: dict[str, Any], change: str) -> None:
    """Apply one `KEY=VALUE`, the value read as YAML: `draw.guidance_scale=5`, `arms=[none, negative]`."""
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise InputError(f"--set {change}: write KEY=VALUE, such as --set draw.guidance_scale=5")
    *parents, last = key.split(".")
    place = raw
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {change}: {parent} is not a mapping")
        place = inner
    try:
        place[last] = yaml.load(value, Loader=_Loader)
    except (yaml.YAMLError, *_PLAIN_YAML_ERRORS):
        raise InputError(f"--set {change}: the value is not YAML") from None


# -- explaining --------------------------------------------------------------------------------------


def explain(error: ValidationError, where: str, model: type[BaseModel]) -> InputError:
    """One message for a failed validation: a line per key with what was found and the right answers."""
    problems: dict[str, list[str]] = {}
    for detail in error.errors():
        key, parent = _place(model, detail["loc"])
        said = problems.setdefault(key, [])
        message = _message(dict(detail), parent)
        if message not in said:
            said.append(message)
    outer = [key for key in problems if any(other.startswith(f"{key}.") for other in problems)]
    for key in outer:  # its parts say it better
        del problems[key]
    lines = [f"{where}: {key}{': ' if key else ''}{'; or: '.join(said)}" for key, said in problems.items()]
    if len(lines) > MOST_PROBLEMS:
        lines = [*lines[:MOST_PROBLEMS], f"{where}: and {len(lines) - MOST_PROBLEMS} more"]
    return InputError("\n".join(lines))


def _message(detail: dict[str, Any], parent: Any) -> str:
    """What is wrong with one key."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        needed = (
            [name for name, field in parent.model_fields.items() if field.is_required()] if _is_model(parent) else []
        )
        return f"the key is missing{_answers('', needed, 'needed are')}"
    if kind == "extra_forbidden":
        known = sorted(parent.model_fields) if _is_model(parent) else []
        return f"not a known key{_answers(str(detail['loc'][-1]), known, 'the keys are')}"
    if kind == "value_error":
        return str(context["error"])
    found = f"found {_found.repr(value) if value is not None else 'nothing'}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return (
            f"{found}: YAML takes it for {_name_of(value)}, not for text (so it does with no, off, on, 1:30); quote it"
        )
    choices = _choices(kind, context, parent, detail["loc"])
    if choices:
        return f"{found}{_answers(str(value), choices, 'it should be one of')}"
    expected = EXPECTED.get(kind)
    return f"{found}; it should be {expected}" if expected else f"{found}; {_without_input(detail['msg'])}"


def _without_input(message: str) -> str:
    """Pydantic's own sentence, about `it`."""
    return re.sub(r"^(Input|String|Value|Data)\b", "it", message)


def _answers(wrong: str, right: Iterable[str], lead: str) -> str:
    """The close match, if there is one, and all right answers."""
    known = list(right)
    close = get_close_matches(wrong, known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{meant}; {lead}: {', '.join(known)}" if known else meant


def _choices(kind: str, context: dict[str, Any], parent: Any, loc: tuple[int | str, ...]) -> list[str]:
    """The right answers, where they can be listed: a `Literal`, or a pattern of plain alternatives."""
    if kind == "literal_error":
        field = parent.model_fields.get(loc[-1]) if _is_model(parent) else None
        listed = _literals(field.annotation) if field else []
        return listed or [str(context["expected"])]
    if kind == "string_pattern_mismatch":
        plain = re.fullmatch(r"\^\(?((?:\w+\|)*\w+)\)?\$", str(context["pattern"]))
        return plain[1].split("|") if plain else []
    return []


def _literals(annotation: Any) -> list[str]:
    """The values of a `Literal`, through `| None`."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [value for part in get_args(annotation) for value in _literals(part)]
    return [str(value) for value in get_args(annotation) if isinstance(value, str | int)]


def _place(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, Any]:
    """The dotted key of an error, and the type that holds the key.

    Pydantic puts the names of the branches of a union into the path; they are no keys and are left out.
    """
    parent: Any = model
    kind: Any = model
    key: list[str] = []
    for step in loc:
        inner, real = _inner(kind, step)
        if real:
            parent = _bare(kind)
            key.append(str(step))
        kind = inner
    return ".".join(key), parent


def _inner(kind: Any, step: int | str) -> tuple[Any, bool]:
    """The type one step down, and whether the step is a key of the file."""
    kind = _bare(kind)
    if step == "[key]":
        return None, False
    if _is_model(kind):
        field = kind.model_fields.get(step)
        return (field.annotation if field else None), True
    if get_origin(kind) in (Union, UnionType):
        branches = [b for b in get_args(kind) if str(step).startswith(getattr(get_origin(b) or b, "__name__", "?"))]
        return (branches[0] if branches else None), False
    arguments = get_args(kind)
    return (arguments[-1 if get_origin(kind) is dict else 0] if arguments else None), True


def _bare(kind: Any) -> Any:
    """A type without `Annotated` and without `| None`."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        branches = [b for b in get_args(kind) if b is not NoneType]
        return _bare(branches[0]) if len(branches) == 1 else kind
    return kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
