from __future__ import annotations

import functools
from typing import Any

import pytest

from diaspora_parsl.executors.runtime.import_scan import Imports, modules_of, normalised


def several() -> Any:
    import json  # noqa: PLC0415
    import os.path  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415
    import parsl.app.app  # noqa: PLC0415
    import zmq.error  # noqa: PLC0415

    def inner() -> Any:
        from rdkit import Chem  # noqa: PLC0415

        return Chem

    return json, os, np, parsl, zmq, inner


def none() -> int:
    return 1


def test_the_imports_of_a_function_and_of_what_is_inside_it() -> None:
    assert Imports().of(several) == {"numpy", "zmq", "rdkit"}
    assert Imports().of(none) == frozenset()


def test_wrappers_are_looked_through() -> None:
    @functools.wraps(several)
    def wrapped() -> Any:
        return several()

    imports = Imports()
    assert imports.of(wrapped) == imports.of(functools.partial(wrapped)) == imports.of(several)


@pytest.mark.parametrize("function", [len, Imports(), str.upper, functools.partial(max, 1)])
def test_what_is_no_plain_function_says_nothing(function: Any) -> None:
    assert Imports().of(function) == frozenset()


def test_modules_of_distributions() -> None:
    assert normalised("Typing_Extensions") == "typing-extensions"
    brought = modules_of({"python-dateutil", "PyZMQ", "not.installed_here"})
    assert {"pyzmq", "not-installed-here"} <= brought
    assert "zmq" in brought  # PyZMQ is installed with Parsl, and tells its modules
    assert "numpy" not in brought
