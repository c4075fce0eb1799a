"""Parsl's monitoring of a pool of different kinds of endpoints: no record of any task is lost."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.launchers import SimpleLauncher
from parsl.monitoring import MonitoringHub
from parsl.providers import LocalProvider
from diaspora_parsl import Endpoint, ResilientPoolExecutor

def work(where):
    import time
    time.sleep(0.3)
    return where

def with_tags(where, parsl_resource_specification=None):
    import time
    time.sleep(0.3)
    return where

if __name__ == "__main__":
    alpha = HighThroughputExecutor(
        label="alpha", address="127.0.0.1", max_workers_per_node=2, cores_per_worker=1e-6, encrypted=False,
        provider=LocalProvider(init_blocks=1, max_blocks=1, launcher=SimpleLauncher()),
    )
    beta = ThreadPoolExecutor(label="beta", max_threads=2)
    pool = ResilientPoolExecutor(
        label="pool", endpoints=[Endpoint(alpha, tags={"processes"}), Endpoint(beta, tags={"threads"})]
    )
    hub = MonitoringHub(resource_monitoring_interval=1)
    config = Config(executors=[pool], monitoring=hub, strategy="none", initialize_logging=False)
    with parsl.load(config):
        app = parsl.python_app(with_tags)
        futures = [
            app(where, parsl_resource_specification={"tags": [where]})
            for where in ("processes", "threads") for _ in range(10)
        ]
        plain = parsl.python_app(work)
        futures += [plain("anywhere") for _ in range(10)]
        print(len([future.result() for future in futures]))
"""


def test_no_record_is_lost(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout) == (0, "30\n"), done.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / "runinfo" / "monitoring.db")) as database:

        def rows(query: str) -> list[tuple[int, ...]]:
            return list(database.execute(query))

        assert rows("SELECT count(*) FROM task") == [(30,)]
        assert rows("SELECT count(*) FROM try WHERE task_executor = 'pool' AND task_fail_history = ''") == [(30,)]
        for state in ("running", "running_ended", "exec_done"):
            counted = rows(f"SELECT count(DISTINCT task_id) FROM status WHERE task_status_name = '{state}'")  # noqa: S608
            assert counted == [(30,)], state
