"""A configuration's file, read and checked; what is wrong is told with file and line."""

import contextlib
import copy
import dataclasses
import datetime
import difflib
import functools
import json
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from demail_hw.config.place import absent, find_configuration
from demail_hw.config.positions import KeyPath, key_lines, line_of
from demail_hw.config.schema import BindingConfig, Configuration, FieldError, ServerConfig
from demail_hw.errors import ConfigurationError, HardwareError

__all__ = [
    "LoadedConfiguration",
    "Problem",
    "configuration_schema",
    "load_configuration",
    "parse_configuration",
    "problems_in",
    "read_configuration",
    "read_text",
]

_Config = TypeVar("_Config", BindingConfig, ServerConfig)
_PLACE: Final = re.compile(r"\(at (?:line (\d+), column \d+|end of document)\)")
_UNKNOWN_KEY: Final = "unexpected_keyword_argument"
_OWN_CHECK: Final = "value_error"
_LONGEST: Final = 1 << 16
_TYPES: Final = {
    "missing": "it is missing",
    "string_type": "must be a text in quotes",
    "path_type": "must be a path in quotes",
    "int_type": "must be a whole number, without quotes",
    "float_type": "must be a number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "tuple_type": "must be a list in brackets",
    "dict_type": "must be a table",
    "dataclass_type": "must be a table",
    "json_invalid": "its tables or lists are nested too deep",
}


class Problem(NamedTuple):
    """What is wrong. ``line``: from 1 on, where it is known; ``key``: as one writes it, empty for the whole file."""

    line: int | None
    key: str
    message: str
    remedy: str = ""


class LoadedConfiguration(NamedTuple):
    """A configuration, and where it stands. ``file``: None if there is none; ``text``: what stands there."""

    configuration: Configuration = Configuration()
    file: Path | None = None
    text: str = ""

    @contextlib.contextmanager
    def blamed(self, *key: str | int) -> Iterator[None]:
        """A :class:`~demail_hw.errors.ConfigurationError` in the ``with`` block comes from what this key says: it is
        told with file and line."""
        try:
            yield
        except ConfigurationError as error:
            raise _error([self.problem(key, error)], self.file) from error

    def problem(self, key: KeyPath, error: HardwareError) -> Problem:
        """The same as a problem, to be told beside others."""
        line = line_of(key, key_lines(self.text))
        return Problem(line, _written(key), error.message.rstrip("."), error.remedy)


def read_configuration(
    path: Path | str | None = None, *, environment: Mapping[str, str] | None = None
) -> LoadedConfiguration:
    """As :func:`load_configuration`, for whoever has more to say of what stands there. Errors: the same."""
    found = find_configuration(environment) if path is None else Path(path)
    if found is None:
        return LoadedConfiguration()
    text = read_text(found)
    return LoadedConfiguration(parse_configuration(text, file=found), found, text)


def load_configuration(
    path: Path | str | None = None, *, environment: Mapping[str, str] | None = None
) -> Configuration:
    """The configuration in ``path``, or in the first file of :func:`~demail_hw.config.place.search_path` that is
    there; an empty one if none is.

    Errors: :class:`~demail_hw.errors.ConfigurationError` with ``file`` and ``line``.
    """
    return read_configuration(path, environment=environment).configuration


def parse_configuration(text: str, *, file: Path | None = None) -> Configuration:
    """A configuration from its text. ``file``: where it stands, for errors and for relative paths.

    Errors: as for :func:`load_configuration`; of several problems, the first in the file.
    """
    result = _checked(text)
    if isinstance(result, Configuration):
        return _anchored(result, (file or Path()).absolute().parent)
    raise _error(result, file)


def problems_in(text: str) -> Sequence[Problem]:
    """Everything that is wrong with a text, in the order of its lines."""
    result = _checked(text)
    return () if isinstance(result, Configuration) else result


def configuration_schema() -> dict[str, Any]:
    """The JSON schema of a configuration, for editors (JSON Schema 2020-12)."""
    return copy.deepcopy(_schema())


@functools.cache
def _schema() -> dict[str, Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(Configuration).json_schema()


def read_text(path: Path) -> str:
    """The text of a configuration's file.

    Errors: :class:`~demail_hw.errors.ConfigurationError`, also if everybody can write the file: it decides which
    machine gets a PIN.
    """
    try:
        status = path.stat()
        if status.st_mode & stat.S_IWOTH:
            raise ConfigurationError(
                f"Everybody may write the configuration {path}.", file=str(path), remedy=f"chmod o-w {path}"
            )
        with path.open("rb") as stream:
            raw = stream.read(_LONGEST + 1)
        if len(raw) > _LONGEST:
            raise ConfigurationError(f"The configuration {path} is longer than 64 KiB.", file=str(path))
        return raw.decode()
    except FileNotFoundError:
        raise absent(path) from None
    except OSError as error:
        raise ConfigurationError(
            f"The configuration {path} cannot be read: {error.strerror}.",
            file=str(path),
            remedy="See who may read it.",
        ) from error
    except UnicodeDecodeError:
        # Not from the error, which holds the whole text.
        raise ConfigurationError(
            f"The configuration {path} is not in UTF-8.", file=str(path), remedy="Save it in UTF-8."
        ) from None


def _checked(text: str) -> Configuration | Sequence[Problem]:
    try:
        document = tomllib.loads(text)
        # By way of JSON: there a list is the one way to write a tuple, and a table to write a value of ours.
        raw = json.dumps(document, default=_foreign)
    except (ValueError, RecursionError) as error:  # also for a number that is too long, and what is nested too deep
        return (_syntax_problem(str(error), text),)
    from pydantic import TypeAdapter, ValidationError  # only here: it takes longer to import than all of ours

    try:
        return TypeAdapter(Configuration).validate_json(raw, strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    lines = key_lines(text)
    problems = [_problem(detail, lines) for detail in details]
    return sorted(problems, key=lambda problem: problem.line or 0)


def _foreign(value: object) -> object:
    """A date or a time, which nothing here is: no text in quotes either."""
    assert isinstance(value, datetime.date | datetime.time)
    return [[value.isoformat()]]


def _syntax_problem(message: str, text: str) -> Problem:
    place = _PLACE.search(message)
    what = _PLACE.sub("", message).strip()
    line = int(place[1]) if place and place[1] else text.rstrip("\n").count("\n") + 1 if place else None
    return Problem(line, "", f"this is no TOML: {what}", "See toml.io for how it is written.")


def _problem(detail: Mapping[str, Any], lines: Mapping[KeyPath, int]) -> Problem:
    path: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
    kind, context = detail["type"], detail.get("ctx", {})
    message, remedy = _TYPES.get(kind) or _foreign_words(detail["msg"]), ""
    if kind == _UNKNOWN_KEY:
        message, remedy = "there is no such key", _nearest(path)
    elif kind == _OWN_CHECK:
        cause = context["error"]
        message = str(cause)
        if isinstance(cause, FieldError):
            path, remedy = (*path, cause.field), cause.remedy
    elif kind == "enum":
        message = f"must be {context['expected']}"
    return Problem(line_of(path, lines), _written(path), message, remedy)


def _foreign_words(message: str) -> str:
    return message[:1].lower() + message[1:]


def _nearest(path: KeyPath) -> str:
    known = sorted(_keys_beside(path))
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known there: {', '.join(known)}."


def _keys_beside(path: KeyPath) -> Iterator[str]:
    """The keys that the table of a key can have, by the JSON schema."""
    schema = _schema()
    node = schema
    for part in path[:-1]:
        node = _resolved(node, schema)
        inner = node.get("properties", {}).get(part)
        node = inner or node.get("additionalProperties") or node.get("items") or {}
    yield from _resolved(node, schema).get("properties", {})


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A node behind its reference, and of several the first that is no null."""
    node = node.get("anyOf", [node])[0]
    name = str(node.get("$ref", "")).rpartition("/")[2]
    return dict(schema["$defs"][name] if name else node)


def _written(path: KeyPath) -> str:
    """As in ``server.exports[1].allow``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _error(problems: Sequence[Problem], file: Path | None) -> ConfigurationError:
    first = problems[0]
    where = f"{file or 'The configuration'}{f', line {first.line}' if first.line else ''}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    key = f"{first.key}: " if first.key else ""
    return ConfigurationError(
        f"{where}: {key}{first.message}{more}.",
        file=str(file) if file else None,
        line=first.line,
        remedy=first.remedy or "See docs/configuration.md, and demail-hw config check for everything that is wrong.",
    )


def _anchored(configuration: Configuration, folder: Path) -> Configuration:
    """The paths that are not absolute begin at the configuration's folder."""
    bindings = {name: _with_paths(binding, folder) for name, binding in configuration.bindings.items()}
    server = configuration.server and _with_paths(configuration.server, folder)
    if server is not None and server.audit is not None:
        server = dataclasses.replace(server, audit=folder / server.audit)
    tls = configuration.tls and configuration.tls.anchored(folder)
    return dataclasses.replace(configuration, bindings=bindings, server=server, tls=tls)


def _with_paths(config: _Config, folder: Path) -> _Config:
    tls = config.tls and config.tls.anchored(folder)
    capture = config.capture and folder / config.capture
    return dataclasses.replace(config, tls=tls, capture=capture)
