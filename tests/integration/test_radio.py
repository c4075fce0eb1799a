"""Parsl's monitoring over the fabric: from every kind of endpoint, with and without a database, and with no fabric."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import parsl
import pytest
from parsl.config import Config
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import Endpoint, FabricMonitoringHub, FabricRadio, open_fabric
from diaspora_parsl import events as ev
from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.fabric.transports.redis.embedded_server import find_server, free_port, write_config
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf

#: Every status that a task which succeeds goes through: three told by the DataFlowKernel, two by its worker.
ON_WORKERS = {"running", "running_ended"}
STATUSES = {"pending", "launched", "exec_done"} | ON_WORKERS

#: What Parsl's database processes need is a script of their own to be started from.
SCRIPT = """
import json, sys
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.monitoring import MonitoringHub
from parsl.providers import LocalProvider
from diaspora_parsl import Endpoint, FabricMonitoringHub, FabricRadio, ResilientPoolExecutor, open_fabric

def work(where, parsl_resource_specification=None):
    import time
    time.sleep(0.2)
    return where

def htex(label, **options):
    return HighThroughputExecutor(
        label=label, address="127.0.0.1", max_workers_per_node=2, cores_per_worker=1e-6, encrypted=False,
        provider=LocalProvider(init_blocks=1, max_blocks=1), **options,
    )

if __name__ == "__main__":
    hub = MonitoringHub(resource_monitoring_interval=1)
    if sys.argv[1] == "pool":
        pool = ResilientPoolExecutor(
            label="pool", remote_monitoring_radio=FabricRadio(),
            endpoints=[
                Endpoint(htex("alpha"), tags={"processes"}),
                Endpoint(ThreadPoolExecutor(label="beta", max_threads=2), tags={"threads"}),
            ],
        )
        executors, hub = [pool], FabricMonitoringHub(database=hub)
    else:
        fabric = open_fabric("embedded", "elsewhere")
        executors = [htex("alpha", remote_monitoring_radio=FabricRadio(fabric=fabric.url))]
    with parsl.load(Config(executors=executors, monitoring=hub, strategy="none", initialize_logging=False)) as dfk:
        app = parsl.python_app(work)
        wishes = [{"tags": [where]} for where in ("processes", "threads")] if sys.argv[1] == "pool" else [{}]
        futures = [app(1, parsl_resource_specification=wish) for wish in wishes for _ in range(6)]
        print(json.dumps([sum(future.result() for future in futures), dfk.run_dir]))
    if sys.argv[1] != "pool":
        fabric.close()
"""


def negative(number: int) -> int:
    return -number


def published(url: str) -> list[ev.Payload]:
    """All that a fabric holds."""
    with (
        contextlib.closing(open_fabric(url)) as fabric,
        contextlib.closing(fabric.subscribe(ev.TOPICS, "earliest")) as subscription,
    ):
        received: list[ev.Payload | None] = []
        while batch := subscription.read(0.2):
            received += [event.payload() for event in batch]
    return [payload for payload in received if payload is not None]


def statuses(payloads: list[ev.Payload]) -> dict[int, set[str]]:
    """What became of each task."""
    found: dict[int, set[str]] = {}
    for payload in payloads:
        if isinstance(payload, ev.TryChanged):
            found.setdefault(payload.parsl_task, set()).add(payload.status)
    return found


def in_database(folder: Path) -> tuple[dict[str, int], int]:
    """How many tasks went through each status, and how many have samples."""
    with contextlib.closing(sqlite3.connect(folder / "runinfo" / "monitoring.db")) as database:
        rows = database.execute("SELECT task_status_name, count(DISTINCT task_id) FROM status GROUP BY 1").fetchall()
        sampled = database.execute("SELECT count(DISTINCT task_id) FROM resource").fetchone()[0]
    return dict(rows), sampled


@pytest.mark.parametrize("kind", ["pool", "plain"])
def test_the_database_gets_all_that_it_gets_from_parsls_own_radios(tmp_path: Path, kind: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), kind], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    count, run_dir = json.loads(done.stdout)
    assert count == (12 if kind == "pool" else 6)
    counted, sampled = in_database(tmp_path)
    assert {name: counted.get(name) for name in STATUSES} == dict.fromkeys(STATUSES, count)
    # A pool with threads measures none of its tasks, since Parsl cannot tell threads apart.
    assert sampled == (0 if kind == "pool" else count)
    place = Path(run_dir) if kind == "pool" else tmp_path / "elsewhere"
    payloads = published(f"embedded://{(tmp_path / place).resolve()}")
    kinds = Counter(type(payload).__name__ for payload in payloads)
    if kind == "pool":
        assert statuses(payloads) == dict.fromkeys(range(count), STATUSES)
        assert (kinds["WorkflowStarted"], kinds["WorkflowEnded"]) == (1, 1)
        blocks = {payload.status for payload in payloads if isinstance(payload, ev.BlockChanged)}
        assert "PENDING" in blocks
    else:
        assert statuses(payloads) == dict.fromkeys(range(count), ON_WORKERS)
        samples = [payload for payload in payloads if isinstance(payload, ev.TrySampled)]
        assert {payload.parsl_task for payload in samples} == set(range(count))
        assert all(payload.memory > 0 and "psutil_process_pid" in payload.more for payload in samples)


ENDED = """
import os, signal, sys
from datetime import datetime
from diaspora_parsl import FabricRadio
from diaspora_parsl.monitors.parsl import messages
sender = FabricRadio(fabric=sys.argv[1], outbox=sys.argv[2]).create_sender()
sender.send((messages._BEGIN_END, {"run_id": "r", "try_id": 0, "task_id": 1, "hostname": "n1", "block_id": "3",
             "first_msg": False, "last_msg": True, "timestamp": datetime(2026, 1, 31)}))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_worker_that_sigterm_ends_before_it_is_connected_loses_no_message(tmp_path: Path) -> None:
    with contextlib.closing(open_fabric("embedded", tmp_path)) as fabric:
        words = [sys.executable, "-c", ENDED, fabric.url, str(tmp_path / "outbox")]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == -signal.SIGTERM, ended.stderr
        assert [type(payload).__name__ for payload in published(fabric.url)] == ["TryChanged"]


def test_threads_and_globus_compute_tell_too_and_no_database_is_made(pool_of: PoolOf, tmp_path: Path) -> None:
    pytest.importorskip("globus_compute_sdk", reason="pip install diaspora-parsl[globus-test]")
    from diaspora_parsl import GlobusEndpoint  # noqa: PLC0415
    from diaspora_parsl.testing.globus import LocalGlobusCompute  # noqa: PLC0415

    hub = FabricMonitoringHub(workflow_name="mixed", resource_monitoring_interval=0)
    with LocalGlobusCompute() as service:
        place = service.endpoint("gamma", workers=2)
        gamma = GlobusEndpoint(endpoint_id=place.id, label="gamma", client_factory=service.client, max_concurrency=2,
                               tags={"far"}, status_period=0.5)  # fmt: skip
        threads = Endpoint(ThreadPoolExecutor(label="beta", max_threads=1), tags={"near"})
        radio = FabricRadio()
        with pool_of(gamma, threads, config={"monitoring": hub}, remote_monitoring_radio=radio) as run:
            assert run.results(run.tasks(4, tags=["far"])) + run.results(run.tasks(4, tags=["near"]))
            run.until(lambda: statuses([e.payload for e in run.published()]) == dict.fromkeys(range(8), STATUSES))
            assert run.events(ev.WorkflowStarted)[0].name == "mixed"
    assert not list(tmp_path.rglob("monitoring.db"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a fabric that does not exist, and how to make it exist."""
    folder, port, password = tmp_path / "server", free_port(), secrets.token_urlsafe(12)
    folder.mkdir()
    command = [str(find_server()), str(write_config(folder, port, password))]
    started: list[subprocess.Popen[bytes]] = []
    yield f"redis://:{password}@127.0.0.1:{port}/0", lambda: started.append(subprocess.Popen(command))
    for process in started:
        process.terminate()
        process.wait(10)


def test_without_a_fabric_tasks_run_on_and_what_they_told_comes_later(
    server: tuple[str, Callable[[], None]], tmp_path: Path, travels: Callable[[Any], Any]
) -> None:
    url, start = server
    hub = FabricMonitoringHub(fabric=url, resource_monitoring_interval=0)
    with LocalSite("alpha", workers=2) as alpha:
        executor: Any = alpha.endpoint.executor
        executor.remote_monitoring_radio = FabricRadio(fabric=url, outbox=str(tmp_path / "outbox"))
        config = Config(executors=[executor], monitoring=hub, strategy="none", run_dir=str(tmp_path / "runinfo"),
                        initialize_logging=False)  # fmt: skip
        with parsl.load(config) as dfk:
            app = parsl.python_app(travels(negative), data_flow_kernel=dfk)
            assert [future.result(60) for future in [app(-n) for n in range(20)]] == list(range(20))
            assert len(list((tmp_path / "outbox").glob("*.sqlite"))) in {1, 2}, "one of each worker that ran any"
            start()
            end = time.monotonic() + 30
            received: dict[int, set[str]] = {}
            while received != dict.fromkeys(range(20), STATUSES):
                assert time.monotonic() < end, received
                time.sleep(0.2)
                with contextlib.suppress(FabricUnavailableError):
                    received = statuses(published(url))
