"""What the pool costs when nothing fails: throughput beside the bare executor, overhead and memory per task.

    python benchmarks/overhead.py [--tasks 4000] [--rounds 5] [--json FILE]

The bare executor and the pool around the same executor take turns in one run (A B A B ...), so that the ratios hold
on a machine whose speed drifts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.providers import LocalProvider
from rich.console import Console
from rich.table import Table

from diaspora_parsl import ResilientPoolExecutor


def noop() -> None:
    """Nothing, as fast as possible."""


def htex(label: str) -> HighThroughputExecutor:
    """Two workers on this host."""
    return HighThroughputExecutor(
        label=label,
        address="127.0.0.1",
        max_workers_per_node=2,
        cores_per_worker=1e-6,
        encrypted=False,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )


def threads(label: str) -> ThreadPoolExecutor:
    """Two threads."""
    return ThreadPoolExecutor(label=label, max_threads=2)


def pooled(make: Callable[[str], ParslExecutor], fabric: str) -> Callable[[str], ParslExecutor]:
    """The same executor as the only endpoint of a pool."""
    return lambda label: ResilientPoolExecutor(label=label, endpoints=[make(f"{label}-inner")], fabric=fabric)


@contextmanager
def loaded(executor: ParslExecutor) -> Any:
    """A DataFlowKernel around one executor, warmed up."""
    with tempfile.TemporaryDirectory() as folder:
        config = Config(executors=[executor], run_dir=folder, initialize_logging=False, strategy="none")
        with parsl.load(config) as kernel:
            settle([executor.submit(noop, {}) for _ in range(200)])
            yield kernel


def settle(futures: list[Future[Any]], timeout: float = 300) -> None:
    """Wait for all of them; a task that failed would make every figure a lie."""
    for future in futures:
        future.result(timeout)


def through_executor(executor: ParslExecutor, tasks: int) -> float:
    """Seconds for so many no-op tasks, submitted to the executor itself."""
    began = time.perf_counter()
    settle([executor.submit(noop, {}) for _ in range(tasks)])
    return time.perf_counter() - began


def through_kernel(kernel: Any, executor: ParslExecutor, tasks: int) -> float:
    """Seconds for so many no-op apps."""
    app = parsl.python_app(noop, executors=[executor.label], data_flow_kernel=kernel)
    began = time.perf_counter()
    settle([app() for _ in range(tasks)])
    return time.perf_counter() - began


def compare(make: Callable[[str], ParslExecutor], tasks: int, rounds: int, fabric: str) -> dict[str, Any]:
    """The bare executor and the pool around it, in turns."""
    bare, pool = make("bare"), pooled(make, fabric)("pool")
    result: dict[str, Any] = {"executor": {"bare": [], "pool": []}, "kernel": {"bare": [], "pool": []}}
    with tempfile.TemporaryDirectory() as folder:
        config = Config(executors=[bare, pool], run_dir=folder, initialize_logging=False, strategy="none")
        with parsl.load(config) as kernel:
            for executor in (bare, pool):
                settle([executor.submit(noop, {}) for _ in range(500)])
            sides = [("bare", bare), ("pool", pool)]
            for _ in range(rounds):
                for name, executor in sides:
                    result["executor"][name].append(tasks / through_executor(executor, tasks))
                for name, executor in sides:
                    result["kernel"][name].append(tasks / through_kernel(kernel, executor, tasks))
                sides.reverse()  # what one run leaves behind is not always paid by the same side
    for layer in ("executor", "kernel"):
        pairs = zip(result[layer]["bare"], result[layer]["pool"], strict=True)
        ratios = [pool_rate / bare_rate for bare_rate, pool_rate in pairs]
        result[layer]["ratio"] = statistics.median(ratios)
        result[layer]["ratios"] = ratios
        extra = [1e6 * (1 / p - 1 / b) for b, p in zip(result[layer]["bare"], result[layer]["pool"], strict=True)]
        result[layer]["overhead_us"] = statistics.median(extra)
    return result


def memory_per_task(make: Callable[[str], ParslExecutor], tasks: int) -> float:
    """Bytes that one waiting task holds, by `tracemalloc`, while every worker is held up by an earlier one."""
    executor = make("memory")
    with loaded(executor):
        blockers: list[Future[Any]] = [executor.submit(time.sleep, {}, 6) for _ in range(2)]
        time.sleep(1.0)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        futures = [executor.submit(noop, {}) for _ in range(tasks)]
        time.sleep(2.0)
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        settle([*blockers, *futures])
    return held / tasks


def machine() -> dict[str, str]:
    """What the figures were seen on."""
    packages = ("parsl", "redis", "msgspec", "diaspora-parsl")
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        **{name: version(name) for name in packages},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=4000, help="no-op tasks per measurement (default 4000)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, in turns (default 5)")
    parser.add_argument("--fabric", default="embedded", help='of the pool (default "embedded")')
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--only", choices=["htex", "threads", "memory"], help="measure one part")
    arguments = parser.parse_args()
    # Parsl starts its programs by name; they are beside this interpreter, whether or not its folder is on PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    figures: dict[str, Any] = {"machine": machine(), "tasks": arguments.tasks, "rounds": arguments.rounds}
    if arguments.only in {None, "htex"}:
        figures["htex"] = compare(htex, arguments.tasks, arguments.rounds, arguments.fabric)
    if arguments.only in {None, "threads"}:
        figures["threads"] = compare(threads, arguments.tasks, arguments.rounds, arguments.fabric)
    if arguments.only in {None, "memory"}:
        bare = memory_per_task(threads, arguments.tasks)
        pool = memory_per_task(pooled(threads, arguments.fabric), arguments.tasks)
        figures["memory"] = {"bare_bytes": bare, "pool_bytes": pool, "extra_bytes": pool - bare}
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def show(figures: dict[str, Any]) -> None:
    """Print a table."""
    console = Console(width=110 if not sys.stdout.isatty() else None)
    table = Table(title="One endpoint in a pool beside the same executor alone (medians)")
    for column in ("endpoint", "submitted to", "bare tasks/s", "pool tasks/s", "ratio", "overhead µs/task"):
        table.add_column(column, justify="left" if column in {"endpoint", "submitted to"} else "right")
    for kind in ("htex", "threads"):
        for layer in ("executor", "kernel"):
            if kind in figures:
                row = figures[kind][layer]
                bare, pool = statistics.median(row["bare"]), statistics.median(row["pool"])
                table.add_row(kind, layer, f"{bare:,.0f}", f"{pool:,.0f}", f"{row['ratio']:.3f}",
                              f"{row['overhead_us']:.1f}")  # fmt: skip
    console.print(table)
    if "memory" in figures:
        memory = figures["memory"]
        console.print(
            f"A waiting task holds {memory['bare_bytes']:,.0f} bytes in the bare executor, "
            f"{memory['pool_bytes']:,.0f} in the pool: {memory['extra_bytes']:,.0f} more."
        )
    console.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()))


if __name__ == "__main__":
    main()
