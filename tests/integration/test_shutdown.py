"""The end of a pool, whatever it is in the middle of: bounded, every future settled, nothing left running."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import parsl
import psutil
import pytest
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import ResilientPoolExecutor
from diaspora_parsl import events as ev
from diaspora_parsl.errors import ConfigurationError, PoolShutdownError
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf, Run

# `pool_of` checks at its exit that cleanup took less than ten seconds, and that no process is left.


def occupied(run: Run, *sites: LocalSite) -> list[Future[int]]:
    """Long tasks, running at these sites and waiting behind."""
    futures = run.tasks(4 * len(sites), 60.0)
    run.until(lambda: {e.site for e in run.executions()} >= {site.label for site in sites})
    return futures


def settled(futures: list[Future[int]]) -> None:
    for future in futures:
        assert future.done()
        assert isinstance(future.exception(), PoolShutdownError)
        assert "shut down before" in str(future.exception())


@pytest.mark.serial
def test_with_running_tasks(pool_of: PoolOf) -> None:
    with LocalSite("alpha") as alpha, LocalSite("beta") as beta:
        with pool_of(alpha, beta) as run:
            futures = occupied(run, alpha, beta)
        settled(futures)
        run.pool.shutdown()  # again: nothing happens
        with pytest.raises(PoolShutdownError, match="is not running"):
            run.pool.submit(print, {})


@pytest.mark.serial
@pytest.mark.parametrize("broken", ["dead interchange", "stopped interchange", "stopped manager", "stopped block"])
def test_with_a_broken_endpoint(pool_of: PoolOf, broken: str) -> None:
    with LocalSite("alpha") as alpha, LocalSite("beta") as beta:
        with pool_of(alpha, beta) as run:
            futures = occupied(run, alpha, beta)
            interchange, manager = alpha.interchange(), alpha.manager()
            assert interchange is not None
            assert manager is not None
            match broken:
                case "dead interchange":
                    interchange.kill()
                case "stopped interchange":
                    interchange.suspend()
                case "stopped manager":
                    manager.suspend()
                case _:
                    alpha.freeze()
        settled(futures)


@pytest.mark.serial
@pytest.mark.parametrize("moment", ["as it dies", "as it is fenced", "as it starts"])
def test_in_the_middle_of_a_revival(pool_of: PoolOf, moment: str) -> None:
    with LocalSite("alpha") as alpha, LocalSite("beta") as beta:
        with pool_of(alpha, beta) as run:
            futures = occupied(run, alpha, beta)
            interchange = alpha.interchange()
            assert interchange is not None
            interchange.kill()
            run.wait_for(ev.EndpointReviving, endpoint="alpha")
            if moment == "as it is fenced":
                run.until(lambda: run.events(ev.EndpointStatus, endpoint="alpha")[-1].generation == 1)
            elif moment == "as it starts":
                run.until(lambda: (central := alpha.interchange()) is not None and central.pid != interchange.pid)
        settled(futures)


def _threads(label: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(label=label, max_threads=1)


def test_without_start() -> None:
    pool = ResilientPoolExecutor(label="pool", endpoints=[_threads("a")])
    pool.shutdown()
    pool.shutdown()
    with pytest.raises(PoolShutdownError, match="is not running"):
        pool.submit(print, {})


def test_a_pool_starts_once(tmp_path: Path) -> None:
    pool = ResilientPoolExecutor(label="pool", endpoints=[_threads("a")], fabric="memory://once")
    pool.run_dir = str(tmp_path)
    pool.start()
    try:
        with pytest.raises(ConfigurationError, match=r"Make a new one for each parsl\.load"):
            pool.start()
        assert pool.submit(lambda: 3, {}).result(10) == 3
    finally:
        pool.shutdown()


def test_threads_that_go_on_do_not_hold_it_up(pool_of: PoolOf) -> None:
    """A thread cannot be killed: its task fails, the pool ends, the thread ends with its task."""
    started = threading.Event()

    def slow() -> None:
        started.set()
        time.sleep(1.5)

    with pool_of(_threads("a"), fabric="memory://threads") as run:
        app = parsl.python_app(slow, data_flow_kernel=run.dfk)
        futures = [app(), app()]
        assert started.wait(10)
    for future in futures:
        assert isinstance(future.exception(5), PoolShutdownError)


SCRIPT = """
import sys, time
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider
from diaspora_parsl import ResilientPoolExecutor

def htex(label):
    return HighThroughputExecutor(
        label=label, address="127.0.0.1", max_workers_per_node=1, encrypted=False,
        provider=LocalProvider(init_blocks=1, max_blocks=1, launcher=SimpleLauncher()),
    )

def work(seconds):
    import time
    time.sleep(seconds)

if __name__ == "__main__":
    pool = ResilientPoolExecutor(label="pool", endpoints=[htex("alpha"), htex("beta")])
    parsl.load(Config(executors=[pool], initialize_logging=False, strategy="none"))
    app = parsl.python_app(work)
    app(0).result()
    futures = [app(60) for _ in range(6)]
    print("working", flush=True)
    END
"""


@pytest.mark.serial
@pytest.mark.parametrize(
    ("last", "interrupt", "codes"),
    [
        ("pass", False, {0}),
        ("raise SystemExit(3)", False, {3}),
        ("futures[0].result()", True, {1, 130, -signal.SIGINT}),
    ],
    ids=["end of script", "exit", "ctrl-c"],
)
def test_an_interpreter_that_ends_without_cleanup(
    tmp_path: Path,
    last: str,
    interrupt: bool,  # noqa: FBT001 - a parameter
    codes: set[int],
) -> None:
    """Parsl only warns then, and leaves its processes behind; a pool ends what it has started."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("END", last), encoding="utf-8")
    with (
        (tmp_path / "err").open("w+") as err,
        subprocess.Popen(
            [sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=err, text=True
        ) as process,
    ):
        assert process.stdout is not None
        said = process.stdout.readline()
        began = time.monotonic()
        if interrupt:
            time.sleep(0.5)  # so that it waits for a result
            process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
            ended = time.monotonic()
        finally:
            process.kill()
            left = [p for p in psutil.process_iter() if _works_in(p, tmp_path)]
            for orphan in left:
                orphan.kill()
        err.seek(0)
        assert said == "working\n", err.read()
    assert not left
    assert ended - began < 12.0
    assert process.returncode in codes


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False
