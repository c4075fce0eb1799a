"""What runs on the workers, the same at every peer; the standard library alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """What a task wrote down about itself."""

    what: str
    task: int
    site: str
    pid: int
    time: float


def write_down(book: str, what: str, task: int) -> None:
    """One line, whole, whoever else writes."""
    site = os.environ.get("DIASPORA_PARSL_SITE", "?")
    handle = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{what} {task} {site} {os.getpid()} {time.time()!r}\n".encode())
    os.close(handle)


def lines(book: str, what: str | None = None) -> list[Line]:
    """What was written down so far, in order."""
    path = Path(book)
    if not path.exists():
        return []
    split = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    found = [Line(kind, int(task), site, int(pid), float(at)) for kind, task, site, pid, at in split]
    return [line for line in found if what in {None, line.what}]


def noop() -> None:
    """Nothing, as fast as possible."""


def nap(seconds: float) -> None:
    """Take its time, and nothing else."""
    time.sleep(seconds)


def counted(number: int, seconds: float, book: str) -> int:
    """Write down that it runs, and take its time."""
    write_down(book, "start", number)
    time.sleep(seconds)
    write_down(book, "end", number)
    return number


def size(data: bytes) -> int:
    """Take what may be too large."""
    return len(data)


def bulk(count: int) -> bytes:
    """Give what may be too large."""
    return bytes(count)


def in_a_black_hole(number: int, seconds: float, book: str, is_bad: bool) -> int:  # noqa: FBT001 - it travels
    """Work, or fail at once on a broken node."""
    if is_bad:
        write_down(book, "bad", number)
        raise RuntimeError("this node is broken")
    time.sleep(seconds)
    return number


def in_a_block(number: int, seconds: float, book: str, nodes: int) -> int:
    """The same under Parsl, where block 0 is broken; with ``nodes``, so is each block that replaces it on its host."""
    block = int(os.environ["PARSL_WORKER_BLOCK_ID"])
    return in_a_black_hole(number, seconds, book, (block % nodes if nodes else block) == 0)


def in_a_dask_worker(number: int, seconds: float, book: str) -> int:
    """The same under Dask, where the worker named 0 is broken."""
    from distributed import get_worker  # noqa: PLC0415 - only there

    return in_a_black_hole(number, seconds, book, str(get_worker().name) == "0")


def in_a_ray_node(number: int, seconds: float, book: str, bad_node: str) -> int:
    """The same under Ray, where one node is broken."""
    import ray  # noqa: PLC0415 - only there

    return in_a_black_hole(number, seconds, book, ray.get_runtime_context().get_node_id() == bad_node)


def needs_a_module(value: int, seconds: float) -> int:
    """One step of an application that needs what only some places have installed."""
    import bench_science  # noqa: PLC0415 - this is the point

    time.sleep(seconds)
    return int(bench_science.step(value))


def straggles(number: int, seconds: float, slow: float, flag: str, book: str) -> int:
    """Usually so many seconds; the first to hold the flag is the slow one."""
    write_down(book, "start", number)
    if flag:
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass  # another attempt is the slow one
        else:
            seconds = slow
    time.sleep(seconds)
    return number


def doomed(number: int, seconds: float, book: str) -> float:
    """Fail by its own fault, wherever it runs."""
    write_down(book, "start", number)
    time.sleep(seconds)
    return number / 0


def kills_its_manager(value: int, seconds: float, flag: str) -> int:
    """One step of an application; the first to hold the flag takes its manager with it."""
    if flag:
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass  # it struck already
        else:
            os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(seconds)
    return value + 1
