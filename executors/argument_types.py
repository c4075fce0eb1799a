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


def checked(init: Callable[Concatenate[_Self, _P], None]) -> Callable[Concatenate[_Self, _P], None]:
    """Return the constructor with a check of all arguments before it.

    Raises:
        ConfigurationError: From the constructor, when an argument does not have the annotated type.
    """
    signature = inspect.signature(init)
    hints = functools.cache(lambda: typing.get_type_hints(init))

    @functools.wraps(init)
    def check(self: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        for name, value in _arguments(signature, self, args, kwargs).items():
            try:
                check_type(value, hints().get(name, Any), collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
            except TypeCheckError:
                wanted = signature.parameters[name].annotation
                raise ConfigurationError(
                    f"{type(self).__name__}: {name}={reprlib.repr(value)} is of type {type(value).__name__}. "
                    f"Write a value of type {wanted}."
                ) from None
        init(self, *args, **kwargs)

    return check


def _arguments(signature: inspect.Signature, *call: Any) -> dict[str, Any]:
    instance, args, kwargs = call
    try:
        return signature.bind(instance, *args, **kwargs).arguments
    except TypeError:
        return {}  # the call itself says what is missing or unknown
