from __future__ import annotations

from typing import Any

import pytest
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import Endpoint, PoolSettings, ResilientPoolExecutor
from diaspora_parsl.errors import ConfigurationError


def _pool(**options: Any) -> ResilientPoolExecutor:
    return ResilientPoolExecutor(**{"endpoints": [ThreadPoolExecutor(label="alpha")], **options})


class _Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("argument", "value", "wanted"),
    [
        ("max_attempts", "20", "int"),
        ("unavailable_timeout", None, "float"),
        ("hedging", "yes", "bool"),
        ("settings", {"max_attempts": 3}, "PoolSettings"),
        ("working_dir", 7, "str"),
        ("strategy", _Unprintable(), "str"),
    ],
)
def test_a_pool_refuses_an_argument_of_another_type(argument: str, value: object, wanted: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"ResilientPoolExecutor: {argument}=.* Write a value of type {wanted}"
    ):
        _pool(**{argument: value})


@pytest.mark.parametrize(("argument", "value"), [("max_concurrency", 1.5), ("mem_per_worker", "4 GB"), ("site", 3)])
def test_an_endpoint_refuses_an_argument_of_another_type(argument: str, value: object) -> None:
    wrong: Any = {argument: value}
    with pytest.raises(ConfigurationError, match=f"Endpoint: {argument}="):
        Endpoint(ThreadPoolExecutor(label="alpha"), **wrong)


def test_a_tag_is_a_string() -> None:
    wrong: Any = [1]
    with pytest.raises(ConfigurationError, match="write strings"):
        Endpoint(ThreadPoolExecutor(label="alpha"), tags=wrong)


def test_an_unknown_argument_is_a_type_error_as_everywhere() -> None:
    with pytest.raises(TypeError, match="heartbeats"):
        _pool(heartbeats=(1, 4))


def test_the_text_of_a_pool_shows_every_argument_and_no_password() -> None:
    text = repr(_pool(fabric="redis://user:secret@host:6379/0", max_attempts=7, settings=PoolSettings(max_kills=9)))
    assert "max_attempts=7" in text
    assert "max_kills=9" in text
    assert "unrecorded" not in text
    assert "secret" not in text
