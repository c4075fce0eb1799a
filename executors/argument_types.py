"""Argument types of constructors, checked against their annotations as Parsl checks those of its executors."""

from __future__ import annotations

import functools
import inspect
import reprlib
import typing
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from diaspora_parsl.errors import ConfigurationError

_P = ParamSpec("_P")
_Self = TypeVar("_Self")


def checked(
    *unchecked: str,
) -> Callable[[Callable[Concatenate[_Self, _P], None]], Callable[Concatenate[_Self, _P], None]]:
    """Have a constructor check the types of its arguments.

    The constructor raises a `ConfigurationError` when an argument does not have the annotated type.

    Args:
        unchecked: Names of arguments that the constructor itself checks, with a sentence that says more.
    """

    def decorate(init: Callable[Concatenate[_Self, _P], None]) -> Callable[Concatenate[_Self, _P], None]:
        signature = inspect.signature(init)
        hints = functools.cache(lambda: typing.get_type_hints(init))

        @functools.wraps(init)
        def check(self: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
            for name, value in _arguments(signature, self, args, kwargs).items():
                if name not in unchecked and name in hints():
                    _check(type(self).__name__, name, value, hints()[name], signature.parameters[name].annotation)
            init(self, *args, **kwargs)

        return check

    return decorate


def _check(owner: str, name: str, value: object, wanted: Any, written: str) -> None:
    try:
        check_type(value, wanted, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        raise ConfigurationError(
            f"{owner}: {name}={reprlib.repr(value)} is of type {type(value).__name__}. Write a value of type {written}."
        ) from None


def _arguments(signature: inspect.Signature, *call: Any) -> dict[str, Any]:
    instance, args, kwargs = call
    try:
        return signature.bind(instance, *args, **kwargs).arguments
    except TypeError:
        return {}  # the call itself says what is missing or unknown
