"""What hedging gains on real endpoints when one attempt in twenty straggles, and what it costs when none does."""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.providers import LocalProvider
from rich.console import Console
from rich.table import Table

from diaspora_parsl import ResilientPoolExecutor, open_fabric
from diaspora_parsl import events as ev

ENDPOINTS = ("alpha", "beta", "gamma")
#: Seconds that a task takes, and that it takes longer if its attempt straggles.
SECONDS, LONGER = 0.1, 1.9


def work(share: float, seconds: float, longer: float, book: str) -> None:
    """Straggle by chance, because of the attempt, not of the task; say so in the book."""
    import random  # noqa: PLC0415 - it travels alone
    import time  # noqa: PLC0415

    time.sleep(seconds)
    if random.SystemRandom().random() < share:
        with open(book, "a") as file:  # noqa: PTH123 - it travels light
            file.write(".")
        time.sleep(longer)


def threads(label: str) -> ParslExecutor:
    """An endpoint of threads."""
    return ThreadPoolExecutor(label=label, max_threads=4)


def htex(label: str) -> ParslExecutor:
    """An endpoint with workers of its own."""
    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    return HighThroughputExecutor(label=label, provider=provider, max_workers_per_node=4, address="127.0.0.1",
                                  cores_per_worker=0.1)  # fmt: skip


def measure(make: Callable[[str], ParslExecutor], tasks: int, rate: float, share: float, *, hedging: bool) -> Any:
    """Submit so many tasks per second; how long each took, and how many attempts were made."""
    fabric = open_fabric("memory://")
    pool = ResilientPoolExecutor(endpoints=[make(label) for label in ENDPOINTS], fabric=fabric, hedging=hedging)
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "stragglers"
        book.touch()
        dfk = parsl.load(Config(executors=[pool], run_dir=folder, strategy="none", initialize_logging=False))
        try:
            app = parsl.python_app(work, data_flow_kernel=dfk)
            # Workers start, and what is usual becomes known.
            for _ in range(8):
                for future in [app(0.0, SECONDS, 0.0, "") for _ in range(24)]:
                    future.result(60)
            warm = len(reported(fabric, ev.TaskDispatched))
            latencies: list[float] = []
            lock = threading.Lock()

            def note(_: Future[Any], since: float) -> None:
                with lock:
                    latencies.append(time.monotonic() - since)

            futures = []
            begin = time.monotonic()
            for number in range(tasks):
                time.sleep(max(0.0, begin + number / rate - time.monotonic()))
                now = time.monotonic()
                future = app(share, SECONDS, LONGER, str(book))
                future.add_done_callback(lambda done, since=now: note(done, since))
                futures.append(future)
            for future in futures:
                future.result(120)
            time.sleep(0.5)
            attempts = len(reported(fabric, ev.TaskDispatched)) - warm
            stragglers = book.stat().st_size
        finally:
            dfk.cleanup()
            parsl.clear()
    latencies.sort()
    return {
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[int(0.99 * len(latencies))],
        "stragglers": stragglers / attempts,
        "extra": attempts / tasks - 1.0,
    }


def reported(fabric: Any, kind: type[ev.Payload]) -> list[ev.Payload]:
    """All events of one kind."""
    reader = fabric.subscribe(ev.TOPICS, "earliest")
    found = []
    try:
        while batch := reader.read(0.2):
            found += [event.payload() for event in batch if event.type == kind.event_type()]
    finally:
        reader.close()
    return found


def main() -> None:
    """Run it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=800)
    parser.add_argument("--rate", type=float, default=25.0, help="tasks submitted per second")
    parser.add_argument("--share", type=float, default=0.05, help="of attempts that straggle")
    parser.add_argument("--kinds", nargs="*", default=["threads", "htex"], choices=["threads", "htex"])
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    times = 1.0 + LONGER / SECONDS
    title = f"Three endpoints, {options.tasks} tasks of {SECONDS} s, stragglers take {times:.0f} times as long"
    table = Table(title=title)
    for column in ("endpoints", "stragglers", "hedging", "p50 s", "p99 s", "extra attempts"):
        table.add_column(column, justify="right")
    figures: list[dict[str, Any]] = []
    for kind in options.kinds:
        for share, hedging in ((options.share, False), (options.share, True), (0.0, True)):
            make = threads if kind == "threads" else htex
            found = measure(make, options.tasks, options.rate, share, hedging=hedging)
            figures.append({"endpoints": kind, "share": share, "hedging": hedging, **found})
            table.add_row(kind, f"{found['stragglers']:.1%}", "on" if hedging else "off", f"{found['p50']:.2f}",
                          f"{found['p99']:.2f}", f"{found['extra']:.1%}")  # fmt: skip
    Console().print(table)
    if options.json:
        machine = {"python": platform.python_version(), "parsl": parsl.__version__, "machine": platform.platform()}
        options.json.write_text(json.dumps({"machine": machine, "figures": figures}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
