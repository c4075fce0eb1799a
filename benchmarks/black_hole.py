"""One of four nodes fails everything at once: how many tasks it spoils, beside plain Parsl.

    python benchmarks/black_hole.py [--tasks 400] [--seconds 0.2] [--json FILE]

One HTEX endpoint of four one-worker blocks. On the bad node the function raises at once, so that the node is always
free and takes nearly everything. The bad node is block 0 ("block": a block that replaces it is good), or the first of
four hosts ("host": a block that replaces it is bad again).
"""

from __future__ import annotations

import argparse
import builtins
import json
import os
import platform
import tempfile
import time
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider
from rich.console import Console
from rich.table import Table

from diaspora_parsl import ResilientPoolExecutor
from diaspora_parsl.testing.sites import node_names

NODES = 4


def work(number: int, seconds: float, bad: str, book: str) -> int:
    """Take its time, or raise on a bad node; each failure is written down."""
    import os  # noqa: PLC0415 - it travels alone
    import time  # noqa: PLC0415

    here = os.environ.get("PARSL_WORKER_BLOCK_ID") if bad == "block" else os.environ.get("DIASPORA_PARSL_NODE")
    if here in {"0", "node-0"}:
        handle = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{number}\n".encode())
        os.close(handle)
        raise OSError(5, f"Input/output error in block {os.environ.get('PARSL_WORKER_BLOCK_ID')}")
    time.sleep(seconds)
    return number


def _travelling(function: Any) -> Any:
    """The function by value: workers of peers may not have this file."""
    names = {"__builtins__": builtins, "__name__": "__main__"}
    alone = types.FunctionType(function.__code__, names, function.__name__)
    alone.__module__ = "__main__"
    return alone


def _executor(label: str, folder: Path, bad: str) -> HighThroughputExecutor:
    return HighThroughputExecutor(
        label=label,
        address="127.0.0.1",
        max_workers_per_node=1,
        cores_per_worker=1e-6,  # the nodes share the cores of this host
        encrypted=False,
        provider=LocalProvider(
            init_blocks=NODES,
            min_blocks=NODES,
            max_blocks=NODES,
            launcher=SimpleLauncher(),
            worker_init=node_names(folder / "names", NODES) if bad == "host" else "",
        ),
    )


def run(
    tasks: int = 400, *, seconds: float = 0.2, bad: str = "block", pool: bool = True, retries: int = 0
) -> dict[str, Any]:
    """One run.

    Args:
        tasks: how many.
        seconds: each takes.
        bad: "block" or "host": what the bad node is known by.
        pool: with the pool around the endpoint; otherwise plain Parsl.
        retries: Parsl's own.

    Returns:
        Share of tasks that succeeded, executions that failed, makespan in seconds and the ideal one on the good nodes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inner = _executor("inner", folder, bad)
        executor = ResilientPoolExecutor(label="pool", endpoints=[inner]) if pool else inner
        config = Config(
            executors=[executor], run_dir=name, initialize_logging=False, retries=retries, strategy_period=5,
            strategy="simple",
        )  # fmt: skip
        book = folder / "failures"
        with parsl.load(config) as kernel:
            _await_nodes(inner)
            app = parsl.python_app(_travelling(work), data_flow_kernel=kernel)
            began = time.perf_counter()
            futures = [app(number, seconds, bad, str(book)) for number in range(tasks)]
            errors = [future.exception(600) for future in futures]
            makespan = time.perf_counter() - began
        failures = len(book.read_text().splitlines()) if book.exists() else 0
    succeeded = sum(error is None for error in errors)
    return {
        "what": "pool" if pool else "Parsl", "bad": bad, "retries": retries, "tasks": tasks, "seconds": seconds,
        "nodes": NODES, "success": succeeded / tasks, "failed_executions": failures, "makespan": makespan,
        "ideal": tasks * seconds / (NODES - 1),
    }  # fmt: skip


def _await_nodes(executor: HighThroughputExecutor, limit: float = 60.0) -> None:
    """All nodes are there: how they come is not what is measured."""
    end = time.monotonic() + limit
    while executor.interchange_proc is None or len(executor.connected_managers()) < NODES:
        if time.monotonic() > end:
            raise TimeoutError(f"not all {NODES} nodes came within {limit:.0f} s")
        time.sleep(0.2)


def main() -> None:
    """Run all, print a table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    table = Table(title=f"1 of {NODES} nodes fails everything at once: {arguments.tasks} tasks of "
                        f"{arguments.seconds:g} s")  # fmt: skip
    for column in ("", "bad by", "retries", "success", "failed executions", "makespan s", "ideal s"):
        table.add_column(column, justify="right" if column not in {"", "bad by"} else "left")
    results = []
    for bad in ("block", "host"):
        for pool, retries in ((False, 0), (False, 3), (True, 0)):
            one = run(arguments.tasks, seconds=arguments.seconds, bad=bad, pool=pool, retries=retries)
            results.append(one)
            table.add_row(one["what"], bad, str(retries), f"{one['success']:.1%}", str(one["failed_executions"]),
                          f"{one['makespan']:.1f}", f"{one['ideal']:.1f}")  # fmt: skip
    Console(width=100).print(table)
    if arguments.json:
        machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count(),
                   "parsl": version("parsl")}  # fmt: skip
        arguments.json.write_text(json.dumps({"machine": machine, "runs": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
