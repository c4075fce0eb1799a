"""An agent in virtual time, and the line of shell that starts one."""

from __future__ import annotations

import os
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import Event, NodeHeartbeat, NodeStopped
from diaspora_parsl.executors.parsl.worker_init import agent_command
from diaspora_parsl.monitors.agent.agent import MAX_BACKOFF, Agent, AgentConfig
from diaspora_parsl.monitors.agent.parent_watch import ParentWatch, block_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class FakeFabric:
    """Keeps what is published, with the time; down whenever it is told so."""

    url = "fake://"

    def __init__(self, world: World) -> None:
        self.world = world
        self.closed = False

    def publish(self, events: Sequence[Event]) -> None:
        self.world.tried.append(self.world.now)
        if self.world.is_down(self.world.now):
            raise FabricUnavailableError("down")
        self.world.received += [(self.world.now, event) for event in events]

    def subscribe(self, topics: Sequence[str], position: object = "latest") -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class World:
    """Virtual time, in which waiting costs nothing."""

    def __init__(self, end: float, down: tuple[float, float] = (0, 0), stall: tuple[float, float] = (0, 0)) -> None:
        self.now = 100.0
        self.end = 100.0 + end
        self.down = (100.0 + down[0], 100.0 + down[1])
        self.stall = (100.0 + stall[0], stall[1])
        self.tried: list[float] = []
        self.received: list[tuple[float, Event]] = []
        self.opened: list[FakeFabric] = []

    def is_down(self, now: float) -> bool:
        return self.down[0] <= now < self.down[1]

    def open(self) -> FakeFabric:
        self.opened.append(FakeFabric(self))
        return self.opened[-1]

    def wait(self, seconds: float) -> str:
        before, self.now = self.now, self.now + seconds
        if before < self.stall[0] <= self.now:
            self.now += self.stall[1]
        return "SIGTERM" if self.now >= self.end else ""

    def run(self, interval: float = 1.0) -> list[float]:
        config = AgentConfig(endpoint="alpha", site="anl", block="0", node="n1", interval=interval)
        agent = Agent(config, self.open, ParentWatch(None), clock=lambda: self.now)  # type: ignore[arg-type]
        assert agent.run(self.wait) == "SIGTERM"
        beats = [(now, event) for now, event in self.received if event.type == NodeHeartbeat.event_type()]
        return [now - 100.0 for now, _ in beats]


def test_it_beats_once_an_interval_and_says_goodbye() -> None:
    world = World(end=5)
    assert world.run() == [0, 1, 2, 3, 4]
    events = [event for _, event in world.received]
    assert events[0].payload() == NodeHeartbeat(endpoint="alpha", site="anl", block="0", node="n1", interval=1.0)
    assert events[-1].payload() == NodeStopped(endpoint="alpha", site="anl", block="0", node="n1", reason="SIGTERM")
    assert {(event.subject, event.partitionkey, event.originsite) for event in events} == {("alpha", "alpha", "anl")}
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6]
    (source,) = {event.source for event in events}
    assert source.startswith(f"/anl/alpha/0/n1/{os.getpid()}-")
    assert len(world.opened) == 1
    assert world.opened[0].closed


def test_a_stall_is_followed_by_one_beat_and_no_burst() -> None:
    beats = World(end=25, stall=(3, 10.5)).run()
    assert beats[:3] == [0, 1, 2]
    after = beats[3:]
    assert after[0] == 13.5
    assert all(later - earlier == pytest.approx(1.0) for earlier, later in pairwise(after))


def test_an_outage_is_met_with_patience_and_no_old_beats(capfd: pytest.CaptureFixture[str]) -> None:
    world = World(end=200, down=(10, 150))
    beats = world.run()
    assert not [beat for beat in beats if 10 <= beat < 150]
    back = next(beat for beat in beats if beat >= 150)
    assert back <= 150 + MAX_BACKOFF + 1
    tries = [now - 100 for now in world.tried if 10 <= now - 100 < 150]
    assert 20 <= len(tries) <= 45
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[1].endswith("connected")
    assert all(fabric.closed for fabric in world.opened)


def test_a_fabric_dead_from_first_to_last_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert World(end=3600, down=(0, 3600)).run() == []
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("wrong", [{"endpoint": " "}, {"endpoint": "a", "interval": 0}])
def test_wrong_input_says_so(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        AgentConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("parsl.alpha.block-0.1699.12", "0"),
        ("parsl.my.dotted.label.block-12.1699.12", "12"),
        ("parsl.alpha.block-7", "7"),
        ("nightly-backup", ""),
    ],
)
def test_the_block_is_read_from_the_name_of_the_job(monkeypatch: pytest.MonkeyPatch, name: str, block: str) -> None:
    monkeypatch.setenv("JOBNAME", name)
    assert block_name(None) == block


def test_an_ended_parent_is_noticed() -> None:
    child = subprocess.Popen(["sleep", "60"])
    parent_watch = ParentWatch(child.pid)
    assert parent_watch.gone() == ""
    child.kill()
    child.wait()
    assert "has ended" in parent_watch.gone()
    assert "has ended" in ParentWatch(child.pid).gone()
    assert ParentWatch(None).gone() == ""


def test_the_command_quotes_what_it_is_given_and_hides_passwords(tmp_path: Path) -> None:
    line = agent_command("my alpha", "a'nl", tmp_path / "fabric.json")
    assert "--endpoint 'my alpha'" in line
    assert f"--fabric {tmp_path}/fabric.json" in line
    assert "$" not in line  # it may stand in a here-document
    secret = agent_command("alpha", "anl", "redis://:s3cret@host:6379/0")
    assert secret.index("DIASPORA_PARSL_FABRIC=") < secret.index("s3cret") < secret.index("sh -s")
    assert "--fabric redis://host:6379/0" in agent_command("alpha", "anl", "redis://host:6379/0")


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_without_the_package_the_command_does_nothing(tmp_path: Path, shell: str) -> None:
    script = tmp_path / "block.sh"
    script.write_text(f"set -eu\n{agent_command('alpha', 'anl', tmp_path)}\nwait\necho done\n")
    program = next(f"{place}/{shell}" for place in ("/bin", "/usr/bin") if os.access(f"{place}/{shell}", os.X_OK))
    empty = {"PATH": str(tmp_path)}
    done = subprocess.run([program, str(script)], env=empty, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
