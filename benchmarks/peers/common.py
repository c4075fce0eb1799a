"""What all peers measure the same way; the standard library alone."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import tasks

#: Of the fault table: tasks, seconds of each, workers of the endpoint that is struck.
TASKS = 48
SECONDS = 0.25
SLOTS = 2


def here(name: str) -> str:
    """A file that workers find too, wherever they run."""
    return str(Path(name).resolve())


def time_failures(fail: Callable[[int], object], spec: dict[str, Any]) -> dict[str, float]:
    """Figures of doomed tasks; ``fail`` runs one, by its number, and returns its error."""
    took = []
    for number in range(spec["tasks"]):
        began = time.monotonic()
        error = fail(number)
        took.append(time.monotonic() - began)
        if "ZeroDivisionError" not in f"{type(error)} {error!r}":
            raise RuntimeError(f"failed otherwise: {error!r}")
    runs = Counter(line.task for line in tasks.lines("book", "start"))
    return {
        "executions": statistics.mean(runs.values()),
        "to_failure": statistics.median(took),
        "beyond_ms": 1000 * (statistics.median(took) - spec["seconds"]),
    }


def second_starts(book: str, struck: float, was_there: Callable[[tasks.Line], bool]) -> dict[str, float | None]:
    """When tasks that had started at the lost place started again, and how many ran twice without having been there.

    Args:
        book: of the tasks.
        struck: Unix time of the fault.
        was_there: whether a start was at the lost place.
    """
    first: dict[int, tasks.Line] = {}
    again, needless = [], 0
    for line in tasks.lines(book, "start"):
        before = first.setdefault(line.task, line)
        if before is line:
            continue
        if was_there(before):
            again.append(line.time - struck)
        else:
            needless += 1
    return {"rerouted": min(again, default=None), "needless": needless}


def after_a_killed_worker(
    submit: Callable[[int, float], Any], outcome: Callable[[list[Any], float], dict[str, float]], book: str
) -> dict[str, Any]:
    """Kill the worker of a running task: figures of the fault table at a peer without endpoints.

    Args:
        submit: a task by its number and seconds.
        outcome: waits for all; gets what was submitted and the monotonic time of the fault.
        book: of the tasks.
    """
    given = [submit(number, SECONDS) for number in range(TASKS)]
    end = time.monotonic() + 20
    while len(tasks.lines(book, "start")) <= 2 * SLOTS:
        if time.monotonic() > end:
            raise RuntimeError("the workers took no tasks")
        time.sleep(0.02)
    victim = tasks.lines(book, "start")[-1].pid
    began, struck = time.monotonic(), time.time()
    os.kill(victim, signal.SIGKILL)
    figures = outcome(given, began)
    return {**figures, **second_starts(book, struck, lambda line: line.pid == victim)}
