"""Stimulus logs as JSON lines: what a core was told, and what it answered.

An archive is an xz-compressed text. The first line of a log is a header with the name, the endpoints and the settings;
every field of those is written down. Each further line is ``[stimulus, [action, ...]]``. A struct is an object with its
class name under ``type``; in stimuli and actions, fields that have their default value are left out.
"""

from __future__ import annotations

import functools
import json
import lzma
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, Struct

from diaspora_parsl.core import actions, settings, stimuli
from diaspora_parsl.core.failures import Attribution, Failure, FailureAction, Kind
from diaspora_parsl.core.health.assessor import State

FOLDER: Final = Path(__file__).parent
SUFFIX: Final = ".jsonl.xz"

STIMULI: Final[tuple[type[Struct], ...]] = typing.get_args(stimuli.Stimulus)
ACTIONS: Final[tuple[type[Struct], ...]] = typing.get_args(actions.Action)

#: What a stimulus or a header may hold, by class name.
_KNOWN: Final[tuple[type[Any], ...]] = (
    *STIMULI,
    settings.EndpointSpec,
    settings.PoolSettings,
    Failure,
    FailureAction,
    Attribution,
    Kind,
    State,
)
_TYPES: Final = {cls.__name__: cls for cls in _KNOWN}
_PLAIN: Final = frozenset({int, float, str, bool, type(None)})
#: The best that xz can do: an archive is written once and kept for ever.
_PRESET: Final = 9 | lzma.PRESET_EXTREME


@dataclass
class Log:
    """What one core was told, and what it answered, as JSON.

    Attributes:
        name: says where it comes from.
        endpoints: the encoded `EndpointSpec` of each endpoint.
        settings: the encoded `PoolSettings`.
        steps: one line for each stimulus, with the actions that answer it.
    """

    name: str
    endpoints: list[dict[str, Any]]
    settings: dict[str, Any]
    steps: list[str] = field(default_factory=list)

    def header(self) -> str:
        """The first line of the log."""
        return dumps({"log": self.name, "endpoints": self.endpoints, "settings": self.settings})


def dumps(value: Any) -> str:
    """Canonical JSON: equal values give equal text, and floats, infinities included, come back unchanged."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def encode(value: Any, *, whole: bool = False) -> Any:
    """A value as JSON types.

    Args:
        value: a struct, an enum member, an exception, a tuple, a frozenset or a plain value.
        whole: keep the fields of structs that have their default value.

    Raises:
        TypeError: the value is of a type that no log may hold.
    """
    cls = type(value)
    if cls in _PLAIN:
        return value
    if cls is tuple:
        return [encode(item, whole=whole) for item in value]
    if cls is frozenset:
        return {"frozenset": sorted(value)}
    if isinstance(value, Struct):
        data: dict[str, Any] = {"type": cls.__name__}
        for name, default in _defaults(type(value)):
            item = getattr(value, name)
            if whole or not _is_same(item, default):
                data[name] = encode(item, whole=whole)
        return data
    if isinstance(value, Enum):
        return {"type": cls.__name__, "value": value.value}
    if isinstance(value, Exception):
        more = {name: encode(item, whole=whole) for name, item in vars(value).items()}
        return {"type": cls.__name__, "text": str(value), **more}
    raise TypeError(f"no stimulus log may hold {value!r} of type {cls.__name__}")


def decode(data: Any) -> Any:
    """The value that `encode` made ``data`` of. Exceptions cannot be decoded: no stimulus holds one.

    Raises:
        LookupError: the data names a type that is not known here.
        TypeError: a struct does not have such fields.
    """
    if isinstance(data, list):
        return tuple(decode(item) for item in data)
    if not isinstance(data, dict):
        return data
    if "frozenset" in data:
        return frozenset(data["frozenset"])
    cls = _TYPES.get(data["type"])
    if cls is None:
        raise LookupError(f"{data['type']} is no type of a stimulus log; known are {', '.join(sorted(_TYPES))}")
    if issubclass(cls, Enum):
        return cls(data["value"])
    return cls(**{name: decode(item) for name, item in data.items() if name != "type"})


@functools.cache
def _defaults(cls: type[Struct]) -> tuple[tuple[str, Any], ...]:
    found = []
    for spec in msgspec.structs.fields(cls):
        made = spec.default_factory
        found.append((spec.name, spec.default if made is NODEFAULT else made()))
    return tuple(found)


def _is_same(value: Any, default: Any) -> bool:
    """Equal in type too; -0.0 is not 0.0."""
    if type(value) is not type(default) or value != default:
        return False
    return type(value) is not float or repr(value) == repr(default)


# --- archives -----------------------------------------------------------------------------------------------------


def archives(folder: Path = FOLDER) -> list[Path]:
    """Every archive of a folder, by name."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def read(archive: Path) -> Iterator[Log]:
    """The logs of an archive, in order."""
    log: Log | None = None
    with lzma.open(archive, "rt", encoding="utf-8", newline="\n") as file:
        for raw in file:
            line = raw.removesuffix("\n")
            if line.startswith("{"):
                if log is not None:
                    yield log
                header = json.loads(line)
                log = Log(header["log"], header["endpoints"], header["settings"])
            elif log is None:
                raise ValueError(f"{archive} begins without a header")
            else:
                log.steps.append(line)
    if log is not None:
        yield log


def write(archive: Path, logs: Iterable[Log]) -> None:
    """Write an archive, in place of the one that is there."""
    lines = (f"{line}\n" for log in logs for line in (log.header(), *log.steps))
    archive.write_bytes(lzma.compress("".join(lines).encode(), preset=_PRESET))
