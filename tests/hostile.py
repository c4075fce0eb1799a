"""Objects that raise when they are touched: what a task may return or raise, and what a pool must survive."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from parsl.app.errors import RemoteExceptionWrapper

#: What an object asks for is answered with one of these.
_RAISES: Final = (RuntimeError, SystemExit, KeyboardInterrupt, MemoryError)
#: Special methods that a program calls on objects that it only means to pass on.
_METHODS: Final = (
    "__repr__", "__str__", "__format__", "__bool__", "__len__", "__eq__", "__hash__", "__iter__", "__getattr__",
    "__setattr__", "__reduce_ex__", "__call__", "__getitem__", "__contains__", "__dir__",
)  # fmt: skip


def _raising(kind: type[BaseException]) -> Callable[..., Any]:
    def method(*_: Any, **__: Any) -> Any:
        raise kind("hostile")

    return method


def _type(base: type, name: str, kind: type[BaseException]) -> type[Any]:
    return type(f"Hostile{name.strip('_').title()}", (base,), {name: _raising(kind)})


class _LyingClass:
    """Says that it is something else, and raises when that is asked."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("hostile")


class _LazyProxy:
    """Resolves its target at the first attribute, which is gone."""

    def __getattribute__(self, name: str) -> Any:
        raise ConnectionError(f"the store is gone: {name}")


class _TwoArguments(Exception):  # noqa: N818 - a user's name
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class _RaisingProperty(Exception):  # noqa: N818 - a user's name
    @property
    def exitcode(self) -> int:
        raise RuntimeError("hostile")

    @property
    def returncode(self) -> int:
        raise SystemExit(3)


class _Falsy(Exception):  # noqa: N818 - a user's name
    def __bool__(self) -> bool:
        return False


class _TextIsNoText(Exception):  # noqa: N818 - a user's name
    def __str__(self) -> Any:
        return 7  # noqa: PLE0307 - that is what is wrong with it


class _Endless(Exception):  # noqa: N818 - a user's name
    def __repr__(self) -> str:
        return repr(self)

    def __str__(self) -> str:
        return str(self)


class _NotesRaise(Exception):  # noqa: N818 - a user's name
    def add_note(self, note: str, /) -> None:
        raise SystemExit(note)


def _cyclic() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def _deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(10 * sys.getrecursionlimit()):
        value = [value]
    return value


_MARK: Final = "\x00diaspora-parsl"

#: Results, by name.
RESULTS: Final[dict[str, Callable[[], Any]]] = {
    **{
        f"{name}-{kind.__name__}": lambda name=name, kind=kind: _type(object, name, kind)()  # type: ignore[misc]
        for name in _METHODS
        for kind in _RAISES[:2]
    },
    "class": _LyingClass,
    "proxy": _LazyProxy,
    "mark": lambda: (_MARK, None),
    "mark-result": lambda: (f"{_MARK}=host block manager", 7),
    "mark-raised": lambda: (f"{_MARK}!host block manager", 7),
    "mark-refused": lambda: (f"{_MARK}~host block manager", None),
    "mark-unknown": lambda: (f"{_MARK}?", None),
    "deep": _deep,
    "exception-as-value": lambda: ValueError("a value"),
    "class-as-value": lambda: SystemExit,
    "type-of-wrapper": lambda: RemoteExceptionWrapper,
}

#: Exceptions, by name.
ERRORS: Final[dict[str, Callable[[], BaseException]]] = {
    **{
        f"{name}-{kind.__name__}": lambda name=name, kind=kind: _type(Exception, name, kind)("text")  # type: ignore[misc]
        for name in _METHODS
        if name not in {"__setattr__", "__reduce_ex__"}
        for kind in _RAISES
    },
    "two-arguments": lambda: _TwoArguments(3, "reason"),
    "properties": _RaisingProperty,
    "falsy": _Falsy,
    "text-is-no-text": _TextIsNoText,
    "endless": _Endless,
    "notes": _NotesRaise,
    "cyclic": _cyclic,
    "system-exit": lambda: SystemExit(1),
    "keyboard-interrupt": KeyboardInterrupt,
    "generator-exit": GeneratorExit,
    "base-exception": lambda: BaseException("base"),
    "stop-iteration": lambda: StopIteration(7),
    "group": lambda: ExceptionGroup("several", [ValueError(1), OSError(2)]),
    "base-group": lambda: BaseExceptionGroup("several", [SystemExit(1)]),
    "long": lambda: ValueError("x" * 10_000_000),
    "no-arguments": Exception,
    "surrogate": lambda: ValueError("\ud800"),
}
