"""The documentation names what the package exports."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import diaspora_parsl
from diaspora_parsl import errors

ROOT = Path(__file__).resolve().parents[2]
DIRECTIVES = re.findall(r"^::: (\S+)$", (ROOT / "docs/reference/api.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", diaspora_parsl.__all__)
def test_every_public_name_stands_in_the_api_reference(name: str) -> None:
    where = {directive.rsplit(".", 1)[-1] for directive in DIRECTIVES}
    assert name in where or (name in vars(errors) and "diaspora_parsl.errors" in DIRECTIVES)


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_every_directive_of_the_api_reference_resolves(directive: str) -> None:
    parent, name = directive.rsplit(".", 1)
    assert hasattr(import_module(parent), name) or import_module(directive)


def test_every_error_is_exported_from_the_top() -> None:
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert found <= set(diaspora_parsl.__all__)
