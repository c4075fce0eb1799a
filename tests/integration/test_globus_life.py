"""Globus Compute endpoints in a pool: beside others, after a crash, with too much to carry, in great numbers."""

from __future__ import annotations

import gc
import logging
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import Endpoint, GlobusEndpoint
from diaspora_parsl import events as ev
from diaspora_parsl.errors import PayloadTooLargeError
from diaspora_parsl.executors.globus.rate_limit import RateLimit
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.faults.injector import Injector
from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf

TASKS = 6
#: A workflow that is killed in the middle, if told so, and can be run again.
WORKFLOW = """
import os, signal, sys, time
import parsl
from parsl.config import Config
from diaspora_parsl import GlobusEndpoint, ResilientPoolExecutor
from diaspora_parsl.testing.globus import client

url, endpoint, folder, how = sys.argv[1:]
pool = ResilientPoolExecutor(
    label="pool",
    endpoints=[GlobusEndpoint(endpoint_id=endpoint, label="alpha", client_factory=lambda: client(url),
                              max_concurrency=2, journal=folder + "/journal", status_period=0.5)],
    fabric="memory://x",
)

@parsl.python_app
def noted(number, book):
    import time
    with open(book, "a") as file:
        file.write(f"{number}\\n")
    time.sleep(1.0)
    return number * number

parsl.load(Config(executors=[pool], strategy="none", run_dir=folder + "/runinfo", initialize_logging=False))
futures = [noted(number, folder + "/book") for number in range(6)]
if how == "crash":
    while not os.path.exists(folder + "/book"):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
if how == "leave":
    sys.exit(0)  # without a word to Parsl, and without a result
print([future.result(60) for future in futures])
"""


@pytest.fixture
def service() -> Iterator[LocalGlobusCompute]:
    with LocalGlobusCompute() as service:
        yield service


def member(service: LocalGlobusCompute, place: EmulatedEndpoint, **options: object) -> GlobusEndpoint:
    given = {"status_period": 0.5, "patience": 3.0, "max_concurrency": 2, "rate_limit": RateLimit(most=1000), **options}
    return GlobusEndpoint(endpoint_id=place.id, label=place.label, client_factory=service.client, **given)  # type: ignore[arg-type]


def workflow(service: LocalGlobusCompute, place: EmulatedEndpoint, folder: Path, how: str) -> subprocess.Popen[str]:
    arguments = [service.url, place.id, str(folder), how]
    return subprocess.Popen(
        [sys.executable, "-c", WORKFLOW, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_after_a_crash_what_was_in_flight_is_not_run_again(service: LocalGlobusCompute, tmp_path: Path) -> None:
    place = service.endpoint("alpha", workers=2)
    with workflow(service, place, tmp_path, "crash") as first:
        assert first.wait(60) == -signal.SIGKILL
    in_flight = sum(service.tasks.get(state, 0) for state in service.tasks)
    assert in_flight >= 2
    with workflow(service, place, tmp_path, "finish") as second:
        out, err = second.communicate(timeout=90)
    assert out.strip() == str([number * number for number in range(TASKS)]), err
    ran = (tmp_path / "book").read_text(encoding="utf-8").split()
    assert sorted(map(int, ran)) == list(range(TASKS))


def test_who_leaves_without_a_word_is_not_kept(service: LocalGlobusCompute, tmp_path: Path) -> None:
    place = service.endpoint("alpha", workers=2)
    place.begin(f.Kill(at=0.0, endpoint="alpha", until=1.0))
    with workflow(service, place, tmp_path, "leave") as run:
        out, err = run.communicate(timeout=45)
    assert run.returncode == 0, out + err


def test_all_kinds_of_endpoints_in_one_pool(service: LocalGlobusCompute, pool_of: PoolOf) -> None:
    place = service.endpoint("gamma", workers=2, environment={"DIASPORA_PARSL_SITE": "gamma"})
    threads = Endpoint(ThreadPoolExecutor(label="delta", max_threads=1))
    with LocalSite("alpha", workers=2) as alpha, pool_of(alpha, threads, member(service, place)) as run:
        run.warm_up("alpha", "gamma", "?")  # threads are in no site
        script = f.FaultScript(
            (f.Kill(at=0.5, endpoint="gamma", until=5.0), f.Kill(at=1.0, endpoint="alpha", until=3.0))
        )
        with Injector(script, [alpha, place]):
            run.results(run.tasks(40, 0.2), limit=90.0)
        assert run.events(ev.TaskRerouted)


def test_what_is_too_large_goes_elsewhere_or_is_refused_with_a_sentence(
    service: LocalGlobusCompute, pool_of: PoolOf, tmp_path: Path
) -> None:
    def size(text: bytes, book: str = "/dev/null") -> int:
        with open(book, "a") as file:  # noqa: PTH123 - sent by value
            file.write(f"{len(text)} ")
        return len(text)

    book = tmp_path / "book"
    place, large = service.endpoint("alpha", workers=1), b"x" * 200_000
    with pool_of(member(service, place, payload_limit=100_000)) as run:
        measure = run.app(size)
        assert measure(b"small", str(book)).result(60) == 5
        with pytest.raises(PayloadTooLargeError, match="another endpoint with tags"):
            measure(large, str(book)).result(60)
        assert measure(b"small", str(book)).result(60) == 5
    assert set(book.read_text().split()) == {"5"}  # the large one was never sent
    threads = Endpoint(ThreadPoolExecutor(label="beta", max_threads=1))
    with pool_of(member(service, place, payload_limit=100_000), threads) as run:
        assert run.app(size)(large).result(60) == 200_000


def test_an_endpoint_that_the_service_does_not_know_is_told_once(
    service: LocalGlobusCompute, pool_of: PoolOf, caplog: pytest.LogCaptureFixture
) -> None:
    place = service.endpoint("alpha", workers=1)
    wrong = GlobusEndpoint(
        endpoint_id=uuid.uuid4(),
        label="wrong",
        client_factory=service.client,
        status_period=0.2,
        rate_limit=RateLimit(1000),
    )
    with pool_of(member(service, place), wrong) as run:
        run.warm_up("alpha")
        run.until(lambda: service.requests_seen.get("GET /v2/endpoints/{endpoint}/status", 0) > 12)
    said = [entry for entry in caplog.records if "wrong" in entry.getMessage() and entry.levelno == logging.WARNING]
    assert len([entry for entry in said if "could not be asked" in entry.getMessage()]) == 1
    assert "404" in said[0].getMessage()


def test_thousands_of_tasks_leave_nothing_behind(service: LocalGlobusCompute, pool_of: PoolOf) -> None:
    def nothing(number: int) -> int:
        return number

    places = [service.endpoint(label, workers=2) for label in ("alpha", "beta")]
    with pool_of(*[member(service, place) for place in places]) as run:
        app, me, seen = run.app(nothing), psutil.Process(), []
        for _ in range(4):
            futures = [app(number) for number in range(800)]
            assert not wait(futures, 120).not_done
            assert [future.result() for future in futures] == list(range(800))
            del futures
            run.dfk.tasks.clear()
            gc.collect()
            time.sleep(0.7)  # the SDK looks every half second
            seen.append((threading.active_count(), me.memory_info().rss))
        (_, _), (threads, memory), *_, (threads_at_the_end, memory_at_the_end) = seen
        assert threads_at_the_end <= threads
        assert memory_at_the_end - memory < 1600 * 10_000, f"{(memory_at_the_end - memory) / 1600:.0f} bytes per task"
        assert {state: count for state, count in service.tasks.items() if count} == {
            "success": sum(service.tasks.values())
        }
