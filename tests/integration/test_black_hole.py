"""One node of an endpoint fails everything at once: no task is lost to it, and it is hardly given any."""

from __future__ import annotations

import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import node_names

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf, Run

NODES = 4


def four_nodes(names: Path | None) -> HighThroughputExecutor:
    """Four one-worker blocks on this host; with names, blocks that replace others run on the same simulated nodes."""
    return HighThroughputExecutor(
        label="inner",
        address="127.0.0.1",
        max_workers_per_node=1,
        cores_per_worker=1e-6,
        encrypted=False,
        provider=LocalProvider(
            init_blocks=NODES,
            min_blocks=NODES,
            max_blocks=NODES,
            launcher=SimpleLauncher(),
            worker_init=node_names(names, NODES) if names else "",
        ),
    )


def work(number: int, bad: str, book: str) -> str:
    """Tell where it ran, or fail there; every start is written down."""
    import os  # noqa: PLC0415 - it travels alone
    import time  # noqa: PLC0415

    here = os.environ["PARSL_WORKER_BLOCK_ID"] if bad == "0" else os.environ["DIASPORA_PARSL_NODE"]
    handle = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{number} {here}\n".encode())
    os.close(handle)
    if here == bad:
        raise OSError(5, f"Input/output error on {here}")
    time.sleep(0.05)
    return here


def starts(book: Path) -> list[list[str]]:
    return [line.split() for line in book.read_text(encoding="utf-8").splitlines()]


def all_there(run: Run) -> None:
    run.until(lambda: any(e.slots == NODES for e in run.events(ev.EndpointStatus)), 120, "not all nodes came")


@pytest.mark.parametrize("bad", ["0", "node-0"])
def test_every_task_succeeds_and_the_bad_node_gets_few(pool_of: PoolOf, tmp_path: Path, bad: str) -> None:
    book = tmp_path / "book"
    with pool_of(four_nodes(tmp_path / "names" if bad != "0" else None)) as run:
        app = run.app(work)  # as the nodes come, one after the other, work is there already
        futures = [app(number, bad, str(book)) for number in range(200)]
        assert all(future.result(120) != bad for future in futures)
        failed = [start for start in starts(book) if start[1] == bad]
        assert len(failed) <= 1 + 3
        if failed:
            published = run.wait_for(ev.NodeQuarantined, endpoint="inner")
            assert published.function.endswith("work")
            assert not run.events(ev.EndpointSuspect)


def test_one_bad_input_puts_no_node_out(pool_of: PoolOf, tmp_path: Path) -> None:
    def picky(number: int) -> int:
        if number % 10 == 7:
            raise ValueError(f"{number} is not good")
        return number

    with pool_of(four_nodes(tmp_path / "names")) as run:
        all_there(run)
        app = run.app(picky)
        futures = [app(number) for number in range(60)]
        for number, future in enumerate(futures):
            if number % 10 == 7:
                with pytest.raises(ValueError, match=f"^{number} is not good$"):
                    future.result(120)
            else:
                assert future.result(120) == number
        assert not run.events(ev.NodeQuarantined)


def test_a_direct_submit_gets_what_the_function_raised(pool_of: PoolOf) -> None:
    with pool_of(four_nodes(None)) as run:
        future = run.pool.submit(int, {}, "no number")
        with pytest.raises(ValueError, match="no number"):
            future.result(120)
        assert run.pool.submit(int, {}, "7").result(120) == 7


def test_a_node_that_fails_different_functions_is_replaced(pool_of: PoolOf, tmp_path: Path) -> None:
    book = tmp_path / "book"

    with pool_of(four_nodes(None), strategy_period=0.5) as run:
        all_there(run)
        end = time.monotonic() + 60
        number = 0
        while not [e for e in run.events(ev.NodeQuarantined) if not e.function]:
            assert time.monotonic() < end
            apps = [run.app(_renamed(f"work_{number + i}")) for i in range(8)]
            futures = [app(number + i, "0", str(book)) for i, app in enumerate(apps)]
            number += len(futures)
            assert all(future.result(120) != "0" for future in futures)
        app = run.app(work)
        seen: set[str] = set()
        while "4" not in seen:
            assert time.monotonic() < end + 60, "no block came instead"
            seen |= {future.result(120) for future in [app(0, "0", str(book)) for _ in range(16)]}
        assert "0" not in seen


def _renamed(name: str) -> Any:
    code = work.__code__.replace(co_name=name)
    function = types.FunctionType(code, work.__globals__, name, work.__defaults__)
    function.__qualname__ = name
    return function
