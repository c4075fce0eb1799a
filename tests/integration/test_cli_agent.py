"""An agent as a process: it beats, says goodbye, ends with its block, and never fails it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import TOPIC_RESOURCE, NodeHeartbeat, NodeStopped, Payload
from diaspora_parsl.executors.parsl.worker_init import agent_command
from diaspora_parsl.fabric.base import Fabric, open_fabric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "diaspora_parsl.cli.main", "agent", "--endpoint", "alpha", "--interval", "0.1"]
PATIENCE = 15.0


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[Fabric]:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with contextlib.closing(open_fabric("embedded", run_dir)) as opened:
        yield opened


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes, each in a process group of its own, and leaves none behind."""
    processes: list[subprocess.Popen[str]] = []

    def start(*command: str, **options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # type: ignore[call-overload]
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            **options,
        )
        processes.append(process)
        return process  # type: ignore[no-any-return]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class Listener:
    """Reads heartbeats until a condition holds."""

    def __init__(self, fabric: Fabric) -> None:
        self._subscription = fabric.subscribe([TOPIC_RESOURCE], "earliest")
        self.received: list[Payload] = []

    def until(self, done: Callable[[list[Payload]], object], seconds: float = PATIENCE) -> list[Payload]:
        end = time.monotonic() + seconds
        while not done(self.received):
            assert time.monotonic() < end, f"waited in vain, heard {self.received[-3:]}"
            with contextlib.suppress(FabricUnavailableError):
                payloads = [event.payload() for event in self._subscription.read(0.1)]
                self.received += [payload for payload in payloads if payload is not None]
        return self.received


def beats(count: int) -> Callable[[list[Payload]], bool]:
    return lambda received: sum(isinstance(payload, NodeHeartbeat) for payload in received) >= count


def goodbye(received: list[Payload]) -> bool:
    return any(isinstance(payload, NodeStopped) for payload in received)


def test_it_beats_and_says_goodbye(
    fabric: Fabric, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    agent = started(*COMMAND, "--site", "anl", "--run-dir", str(tmp_path / "run"), "--node", "n1", "--block", "3")
    listener = Listener(fabric)
    first = listener.until(beats(3))[0]
    assert first == NodeHeartbeat(endpoint="alpha", site="anl", block="3", node="n1", interval=0.1)
    agent.terminate()
    assert agent.communicate(timeout=PATIENCE) == ("", "")
    assert agent.returncode == 0
    last = listener.until(goodbye)[-1]
    assert last == NodeStopped(endpoint="alpha", site="anl", block="3", node="n1", reason="SIGTERM")


def test_stopped_and_continued_it_beats_on_without_a_burst(
    fabric: Fabric, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    agent = started(*COMMAND, "--fabric", str(tmp_path / "run" / "fabric.json"))
    listener = Listener(fabric)
    listener.until(beats(2))
    agent.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, agent.pid, os.WSTOPPED | os.WNOWAIT)
    with pytest.raises(AssertionError, match="in vain"):
        listener.until(lambda _: False, 0.3)
    before = len(listener.received)
    with pytest.raises(AssertionError, match="in vain"):
        listener.until(beats(before + 1), 1.0)
    agent.send_signal(signal.SIGCONT)
    resumed = time.monotonic()
    listener.until(beats(before + 5))
    # Ten were missed in that second; had they been made up for, five would have come at once.
    assert time.monotonic() - resumed > 0.25


def test_a_worker_init_starts_it_and_it_ends_with_its_script(
    fabric: Fabric, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    program = tools / "diaspora-parsl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m diaspora_parsl.cli.main "$@" --interval 0.1\n')
    program.chmod(0o755)
    script = tmp_path / "parsl.alpha.block-5.1699.12.sh"
    init = agent_command("alpha", "anl", tmp_path / "run" / "fabric.json")
    # A bare `wait`, as some launchers have, must not wait for the agent.
    script.write_text(f"{init}\nexport JOBNAME=anything\nsleep 0.1 &\nwait\necho waited\nread -r _ <&3\n")
    read, write = os.pipe()
    path = {"PATH": f"{tools}:{os.environ['PATH']}"}
    block = started("bash", "-c", f"exec bash {script} 3<&{read}", pass_fds=[read], env=os.environ | path)
    os.close(read)
    try:
        listener = Listener(fabric)
        first = listener.until(beats(2))[0]
        assert isinstance(first, NodeHeartbeat)
        assert (first.endpoint, first.site, first.block) == ("alpha", "anl", "5")
        assert block.stdout is not None
        assert block.stdout.readline() == "waited\n"
    finally:
        os.close(write)
    assert block.wait(PATIENCE) == 1  # `read` met the end
    last = listener.until(goodbye)[-1]
    assert isinstance(last, NodeStopped)
    assert last.reason == f"the block's script (process {block.pid}) has ended"
    assert block.stdout.read() == ""


def test_it_ends_with_its_manager_though_the_script_goes_on(
    fabric: Fabric, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    manager = tmp_path / "process_worker_pool.py"
    manager.write_text("import sys\nsys.stdin.read()\n")
    agent = " ".join(COMMAND)
    script = (
        f"( {agent} --run-dir {tmp_path}/run --parent $$ >/dev/null & )\n"
        f"{sys.executable} {manager} <&3 &\nwait\nread -r _\n"
    )
    read, write = os.pipe()
    keep, hold = os.pipe()
    block = started("bash", "-c", f"exec 0<&{keep} 3<&{read}\n{script}", pass_fds=[read, keep])
    os.close(read)
    os.close(keep)
    try:
        listener = Listener(fabric)
        listener.until(beats(3))
        os.close(write)
        last = listener.until(goodbye)[-1]
        assert isinstance(last, NodeStopped)
        assert last.reason == "the block's manager has ended"
        assert block.poll() is None
    finally:
        os.close(hold)
    block.wait(PATIENCE)


def test_without_a_fabric_it_keeps_quiet_and_never_fails(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    agent = started(*COMMAND, "--run-dir", str(tmp_path / "nowhere"))
    assert agent.stderr is not None
    assert "no fabric" in agent.stderr.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        agent.wait(1.0)
    agent.terminate()
    assert agent.communicate(timeout=PATIENCE) == ("", "")
    assert agent.returncode == 0


def test_a_fabric_that_comes_late_or_again_is_found(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    agent = started(*COMMAND, "--run-dir", str(run_dir))
    assert agent.stderr is not None
    assert "no fabric" in agent.stderr.readline()
    with contextlib.closing(open_fabric("embedded", run_dir)) as fabric:
        listener = Listener(fabric)
        listener.until(beats(2))
        assert "connected" in agent.stderr.readline()
        server = getattr(fabric, "server_pid", None)
        assert isinstance(server, int)
        os.kill(server, signal.SIGKILL)
        seen = len(listener.received)
        listener.until(beats(seen + 3))
    assert agent.poll() is None


def test_wrong_usage_is_said_with_code_2(started: Callable[..., subprocess.Popen[str]]) -> None:
    agent = started(*COMMAND, "--fabric", "carrier-pigeon://coop")
    out, error = agent.communicate(timeout=PATIENCE)
    assert (agent.returncode, out) == (2, "")
    assert "has no known scheme" in error
    assert "Traceback" not in error
