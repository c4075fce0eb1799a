"""`watch` and `events` as processes beside a run that goes on, ends, or is over."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.fabric.base import Fabric, open_fabric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "diaspora_parsl.cli.main"]
PATIENCE = 20.0


class Run:
    """A run that publishes by hand."""

    def __init__(self, directory: Path) -> None:
        self.run_dir = directory / "runinfo" / "000"
        self.run_dir.mkdir(parents=True)
        self.fabric: Fabric = open_fabric("embedded", self.run_dir)
        self._sequence = 0

    def say(self, *payloads: ev.Payload) -> None:
        events = []
        for payload in payloads:
            self._sequence += 1
            event = ev.Event(
                id=str(self._sequence),
                source="/here/pool/run",
                type=payload.event_type(),
                subject="",
                time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                partitionkey="",
                sequence=self._sequence,
                data=ev.encode_payload(payload),
            )
            events.append(event)
        self.fabric.publish(events)

    def begin(self) -> None:
        self.say(
            ev.PoolStarted(pool="pool", endpoints=("alpha", "beta"), run_dir=str(self.run_dir)),
            ev.EndpointUp(endpoint="beta", site="uc", reason="connected", slots=2),
            ev.TaskSubmitted(task=17, function="dock"),
            ev.TaskDispatched(task=17, attempt=1, endpoint="alpha", site="anl", reason="free"),
            ev.EndpointDown(endpoint="alpha", site="anl", reason="no manager for 3 s"),
            ev.TaskRerouted(task=17, attempt=1, endpoint="alpha", site="anl", reason="alpha is down"),
        )

    def end(self) -> None:
        self.say(
            ev.TaskFinished(task=17, attempt=2, endpoint="beta", site="uc", seconds=1.0),
            ev.PoolStopped(pool="pool", reason="shut down"),
        )


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    going = Run(tmp_path)
    yield going
    going.fabric.close()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {name: text for name, text in os.environ.items() if name != "DIASPORA_PARSL_FABRIC"}
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def result(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=PATIENCE)
    return process.returncode, out, error


def test_both_find_a_run_by_themselves_while_it_goes_on_and_after(
    run: Run, command: Callable[..., subprocess.Popen[str]]
) -> None:
    run.begin()
    code, frame, error = result(command("watch", "--once"))
    assert (code, error) == (0, "")
    assert "no manager for 3 s" in frame
    assert "1 waiting" in frame
    code, lines, error = result(command("events", "--task", "17"))
    assert (code, error) == (0, "")
    kinds = [json.loads(line)["type"].split(".")[-2] for line in lines.splitlines()]
    assert kinds == ["submitted", "dispatched", "rerouted"]
    run.end()
    run.fabric.close()
    code, frame, error = result(command("watch"))
    assert (code, error) == (0, "")
    assert "ended (shut down); 0 waiting, 0 running, 1 finished" in frame
    code, lines, error = result(command("events", "--run-dir", str(run.run_dir), "--type", "task.*"))
    assert (code, len(lines.splitlines()), error) == (0, 4, "")


def test_following_tells_what_comes_and_ends_with_the_run(
    run: Run, command: Callable[..., subprocess.Popen[str]]
) -> None:
    run.begin()
    events = command("events", "--follow", "--type", "task.*", "--type", "pool.stopped", "--endpoint", "beta")
    watch = command("watch", "--every", "0")
    assert watch.stdout is not None
    assert "alpha down" in watch.stdout.readline()
    everything = command("events", "--follow")
    assert everything.stdout is not None
    for _ in range(6):
        everything.stdout.readline()
    run.end()
    code, out, error = result(watch)
    assert (code, error) == (0, "")
    assert "ended (shut down)" in out.splitlines()[-1]
    # Two topics: which of them is read first is not promised.
    last = everything.stdout.readline() + everything.stdout.readline()
    assert "task.finished" in last
    assert "pool.stopped" in last
    run.fabric.close()
    code, out, _ = result(events)
    assert code == 0
    assert [json.loads(line)["data"]["task"] for line in out.splitlines()] == [17]
    assert result(everything)[0] == 0


def test_a_fabric_restarted_under_a_follower_costs_nothing(
    run: Run, command: Callable[..., subprocess.Popen[str]]
) -> None:
    run.begin()
    events = command("events", "--follow", "--limit", "8", "--run-dir", str(run.run_dir))
    assert events.stdout is not None
    for _ in range(6):
        events.stdout.readline()
    server = getattr(run.fabric, "server_pid", None)
    assert isinstance(server, int)
    os.kill(server, signal.SIGKILL)
    again = threading.Event()
    for _ in range(100):
        with contextlib.suppress(FabricUnavailableError):
            run.end()
            break
        again.wait(0.1)
    code, out, _ = result(events)
    assert code == 0
    assert len(out.splitlines()) == 2


def test_watch_waits_for_a_run_that_has_not_started(
    tmp_path: Path, command: Callable[..., subprocess.Popen[str]]
) -> None:
    watch = command("watch", "--every", "0", "--wait", "20")
    assert watch.stderr is not None
    assert "waiting up to 20 s for a run to start" in watch.stderr.readline()
    run = Run(tmp_path)
    try:
        run.begin()
        run.end()
    finally:
        run.fabric.close()
    code, out, _ = result(watch)
    assert code == 0
    assert "1 finished" in out.splitlines()[-1]


def test_there_is_an_end_to_waiting(command: Callable[..., subprocess.Popen[str]]) -> None:
    code, out, error = result(command("watch", "--wait", "0.3"))
    assert (code, out) == (2, "")
    assert "No fabric found" in error
    assert "Traceback" not in error


def test_an_unreachable_fabric_is_one_sentence(command: Callable[..., subprocess.Popen[str]]) -> None:
    code, out, error = result(command("events", "--fabric", "redis://:s3cret@127.0.0.1:1/0"))
    assert (code, out) == (2, "")
    assert "cannot be reached" in error
    assert "s3cret" not in error
    assert len(error.splitlines()) == 1


def test_ctrl_c_and_a_closed_pipe_are_quiet(run: Run, command: Callable[..., subprocess.Popen[str]]) -> None:
    run.begin()
    watch = command("watch", "--every", "0")
    assert watch.stdout is not None
    watch.stdout.readline()
    watch.send_signal(signal.SIGINT)
    code, _, error = result(watch)
    assert (code, error) == (130, "")
    run.say(*(ev.TaskSubmitted(task=task, function="dock") for task in range(2000)))
    events = command("events")
    assert events.stdout is not None
    events.stdout.readline()
    events.stdout.close()
    assert events.stderr is not None
    assert events.stderr.read() == ""
    assert events.wait(PATIENCE) != 0
