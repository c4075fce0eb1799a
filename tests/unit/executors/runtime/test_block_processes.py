from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import psutil
import pytest

from diaspora_parsl.executors.parsl.adapter import BLOCK_VARIABLE
from diaspora_parsl.executors.runtime import block_processes

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
SLEEPER = "import time; print(1, flush=True); time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).wait()"

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def mark() -> str:
    return f"test/{uuid.uuid4()}"


@pytest.fixture
def start(mark: str) -> Iterator[Start]:
    """Starts Python code in a process group of its own, marked; returns once it has printed something."""
    started: list[subprocess.Popen[str]] = []

    def begin(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, BLOCK_VARIABLE: mark},
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def pids(mark: str) -> set[int]:
    return {process.pid for process in block_processes.of_block(mark)}


def test_a_block_is_found_with_its_children_and_only_it(start: Start, mark: str) -> None:
    one, two = start(PARENT), start(SLEEPER)
    children = {child.pid for child in psutil.Process(one.pid).children()}
    assert len(children) == 1
    assert pids(mark) == {one.pid, two.pid} | children
    assert block_processes.groups_of_block(mark) == {one.pid, two.pid}
    assert block_processes.of_block(mark + "0") == []
    assert os.getpgrp() not in block_processes.groups_of_block(mark)


def test_stopped_and_stubborn_ones_are_killed_too(start: Start, mark: str) -> None:
    stubborn, stopped = start(STUBBORN), start(SLEEPER)
    psutil.Process(stopped.pid).suspend()
    began = time.monotonic()
    assert block_processes.end_block(mark, (), courtesy=0.3) == 2
    assert time.monotonic() - began < 5.0
    assert not psutil.pid_exists(stubborn.pid)
    assert not psutil.pid_exists(stopped.pid)
    assert block_processes.of_block(mark) == []


def test_a_mark_may_stand_in_any_variable(start: Start, mark: str) -> None:
    process = start(SLEEPER)
    assert block_processes.end_block(mark, (), 0.0, variable="DIASPORA_PARSL_OTHER") == 0
    os.environ["DIASPORA_PARSL_OTHER"] = mark
    try:
        other = start(SLEEPER)
    finally:
        del os.environ["DIASPORA_PARSL_OTHER"]
    assert block_processes.end_block(mark, (), 0.0, variable="DIASPORA_PARSL_OTHER") == 1
    assert pids(mark) == {process.pid}
    assert not psutil.pid_exists(other.pid)


def test_those_that_end_by_themselves_are_left_to_it(start: Start, mark: str) -> None:
    start("import time; print(1, flush=True); time.sleep(0.5)")
    assert block_processes.end_block(mark, (), courtesy=10.0) == 0
    assert block_processes.end_block(mark, (), courtesy=0.0) == 0  # nothing there


def test_helpers_that_lost_their_mark_are_found_by_group_and_title(start: Start, mark: str) -> None:
    leader = start(SLEEPER)
    groups = block_processes.groups_of_block(mark)
    code = (
        f"import os, sys; os.setpgid(0, {leader.pid}); os.execv(sys.executable, ['parsl: helper', '-c', {SLEEPER!r}])"
    )
    environment = {name: value for name, value in os.environ.items() if name != BLOCK_VARIABLE}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as helper:
        assert helper.stdout is not None
        helper.stdout.readline()
        assert helper.pid not in pids(mark)
        assert helper.pid in {process.pid for process in block_processes.of_block(mark, groups)}
        assert block_processes.end_block(mark, groups, courtesy=0.1) == 2
        assert not psutil.pid_exists(helper.pid)
