"""What holds for every test: it can be repeated, and it leaves no thread and no process behind."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest
from hypothesis import settings

from diaspora_parsl.testing.services.kafka import KafkaBroker, MockBroker

# Profiles of hypothesis: CI repeats itself, everybody else explores (and may give ``--hypothesis-seed``).
settings.register_profile("ci", derandomize=True, print_blob=True, deadline=None)
settings.register_profile("dev", print_blob=True, deadline=None)  # a busy machine is slow
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

# A shell that starts tests in the background lets them ignore Ctrl-C, which the programs they start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Seconds that what a test started may take to end by itself.
_GRACE: Final = 3.0
#: In the environment of everything that a test starts, so that what lost its parent is found too.
_MARK: Final = "DIASPORA_PARSL_TEST"
#: One per interpreter that ever used `multiprocessing` with spawn; Python ends it with the interpreter.
_RESOURCE_TRACKER: Final = "multiprocessing.resource_tracker"
#: One per interpreter that ever imported the SDK of Globus Compute, as Parsl does where it is installed.
_SDK_THREAD: Final = "(__atexit)"


@pytest.fixture(autouse=True)
def _parsl_logs_no_more_than_before() -> Iterator[None]:
    """Undo the level DEBUG that Parsl leaves on its logger: pytest would keep thousands of records of later tests."""
    level = logging.getLogger("parsl").level
    yield
    logging.getLogger("parsl").setLevel(level)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker | MockBroker]:
    """One broker for all tests of a process, which keep apart by the prefix of their topics."""
    kind = MockBroker if KafkaBroker.why_not() else KafkaBroker
    with kind(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread or a process behind, after a bounded wait for natural ends."""
    mark = uuid.uuid4().hex
    os.environ[_MARK] = mark
    threads = set(threading.enumerate())
    processes, ended = set(_processes(None)) if _has_children() else set(), _ended_children()
    yield
    os.environ.pop(_MARK, None)
    end = time.monotonic() + _GRACE
    # Most tests start no process, and a search for processes takes longer than they do.
    has_started = _has_children() or _ended_children() != ended
    while True:
        left_threads = [t for t in threading.enumerate() if t not in threads and not t.name.endswith(_SDK_THREAD)]
        left_processes = [p for p in _processes(mark) if p not in processes] if has_started else []
        if not left_threads and not left_processes:
            return
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    left = [f"thread {t.name}" for t in left_threads] + [_described(p) for p in left_processes]
    for process in left_processes:
        process.kill()  # or the next tests would suffer for it
    pytest.fail(f"left behind {_GRACE:.0f} s after its end: {'; '.join(left)}", pytrace=False)


def _has_children() -> bool:
    """Whether this process has a child, running or not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _ended_children() -> int:
    """A number that grows with each child that ended and was waited for: page faults of all of them."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt


def _processes(mark: str | None) -> list[psutil.Process]:
    """Every process that runs below this one, and every one that carries the mark wherever it hangs now."""
    found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    for pid in _marked(mark) if mark is not None else ():
        try:
            found.setdefault(pid, psutil.Process(pid))
        except psutil.Error:
            continue  # it ended meanwhile
    return [process for process in found.values() if _counts(process)]


def _marked(mark: str) -> Iterator[int]:
    """Processes with the mark in their environment, this one aside; where there is no /proc, none."""
    wanted = f"{_MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                yield int(folder.name)
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else


def _counts(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and not any(
            _RESOURCE_TRACKER in word for word in process.cmdline()
        )
    except psutil.Error:
        return False  # it ended meanwhile


def _described(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} ({process.status()}): {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"process {process.pid}"
