from __future__ import annotations

import time

import pytest
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.providers import CondorProvider, LocalProvider, PBSProProvider, SlurmProvider
from parsl.providers.base import ExecutionProvider

from diaspora_parsl.executors.runtime.block_walltime import BlockWalltimes, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:10:00", 600.0),
        ("48:00:00", 172_800.0),
        ("10:30", 630.0),
        ("1-02:00:00", 93_600.0),
        ("00:00:00", None),
        ("600", None),
        ("x-01:00:00", None),
        ("1:2:3:4", None),
        ("", None),
        (None, None),
        (600, None),
    ],
)
def test_a_walltime_in_seconds(text: object, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def ages(provider: ExecutionProvider) -> BlockWalltimes:
    return BlockWalltimes(HighThroughputExecutor(label="alpha", address="127.0.0.1", provider=provider))


@pytest.mark.parametrize("provider", [SlurmProvider(walltime="01:00:00"), PBSProProvider(walltime="01:00:00")])
def test_the_block_that_came_last_ends_last(provider: ExecutionProvider) -> None:
    known = ages(provider)
    assert known.until([]) is None
    before = time.monotonic()
    first = known.until(["0"])
    assert first is not None
    assert before <= first - 3600.0 <= time.monotonic()
    second = known.until(["0", "1"])
    assert second is not None
    assert second > first
    assert known.until(["0"]) == first  # it does not grow younger


@pytest.mark.parametrize("provider", [LocalProvider(), CondorProvider(walltime="01:00:00")])
def test_what_nobody_enforces_says_nothing(provider: ExecutionProvider) -> None:
    assert ages(provider).until(["0"]) is None
    assert BlockWalltimes(ThreadPoolExecutor(label="threads")).until([]) is None
