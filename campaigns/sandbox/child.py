"""The program beside a worker: runs functions for it, one at a time, within limits that the kernel keeps."""

from __future__ import annotations

import logging
import os
import pickle
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class UnavailableError(Exception):
    """What a function raises when it works for no argument in this place."""


def serve(connection: Connection) -> None:
    """Do what the worker sends until it goes away."""
    while True:
        try:
            packed = connection.recv_bytes()
        except (EOFError, OSError):
            return
        answer = perform(packed)
        try:
            connection.send(answer)
        except OSError:
            return


def perform(packed: bytes) -> tuple[str, Any]:
    """Call a pickled function; returns ``done`` and its value, or ``raised``, ``memory`` or ``unavailable`` and why."""
    try:
        function, arguments, seconds, megabytes = pickle.loads(packed)  # noqa: S301 - from our own parent
    except Exception as error:  # noqa: BLE001 - modules raise anything when they are imported
        return "unavailable", f"{type(error).__name__}: {error}"
    try:
        with _limited(seconds, megabytes):
            return "done", function(*arguments)
    except MemoryError:
        return "memory", f"More than the limit of {megabytes} MB."
    except (UnavailableError, ImportError) as error:
        return "unavailable", str(error)
    except Exception as error:  # noqa: BLE001 - the functions are the users'
        return "raised", f"{type(error).__name__}: {error}"


@contextmanager
def _limited(seconds: float, megabytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if megabytes and statm.exists():  # elsewhere than on Linux, the kernel does not keep this limit anyway
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        wanted = mapped + megabytes * 1_000_000  # beyond what the codes have mapped already
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))
    # The default action of SIGALRM ends the process from outside, whatever its C++ code is doing.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def main() -> None:
    """Entry point; the argument is the number of an inherited pipe."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the campaign; this process ends with its worker
    os.dup2(2, 1)  # what the C++ codes print must not mix with a worker's own output
    logging.getLogger("rdkit").setLevel(logging.CRITICAL)  # where meeko sends RDKit's log
    with Connection(int(sys.argv[1])) as connection:
        connection.send("ready")
        serve(connection)


if __name__ == "__main__":
    # Under its own name, so that the errors of this module are one class for it and for what it imports.

    from diaspora_parsl.campaigns.sandbox.child import main as run

    run()
