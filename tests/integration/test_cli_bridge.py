"""The bridge as a process: it lasts until it is told to end, and loses nothing when it is killed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.fabric.base import Fabric, open_fabric
from diaspora_parsl.fabric.event_builder import EventBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SITE = """
home = "anl"
state = "state"
[fabrics.anl]
run_dir = "anl"
[fabrics.cloud]
url_variable = "DIASPORA_CLOUD"
[[links]]
from = "anl"
to = "cloud"
"""
PATIENCE = 30.0


class Sides:
    """Two embedded fabrics and the file that joins them."""

    def __init__(self, folder: Path, anl: Fabric, cloud: Fabric) -> None:
        self.anl, self.cloud = anl, cloud
        self.command = [sys.executable, "-m", "diaspora_parsl.cli.main", "bridge", str(folder / "site.toml")]
        (folder / "site.toml").write_text(SITE, encoding="utf-8")
        self.published: list[str] = []
        self._builder = EventBuilder("/anl/pool/run")

    def emit(self, count: int) -> None:
        payload = ev.TaskLate(task=1, attempt=1, endpoint="alpha", site="anl")
        for _ in range(0, count, 100):
            events = [self._builder.wrap(payload, "1", "alpha", time.time()) for _ in range(100)]
            self.anl.publish(events)
            self.published += [event.id for event in events]

    def arrived(self) -> list[str]:
        """What a reader that drops doubles sees, in order."""
        reader = self.cloud.subscribe((ev.TOPIC_TASK,), "earliest")
        ids: dict[str, None] = {}
        try:
            while batch := reader.read(0.05):
                ids |= dict.fromkeys(event.id for event in batch)
        finally:
            reader.close()
        return list(ids)

    def until_arrived(self) -> None:
        end = time.monotonic() + PATIENCE
        while (arrived := self.arrived()) != self.published:
            assert time.monotonic() < end, f"{len(arrived)} of {len(self.published)} arrived"
            time.sleep(0.05)


@pytest.fixture
def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sides]:
    (tmp_path / "anl").mkdir()
    with (
        contextlib.closing(open_fabric("embedded", tmp_path / "anl")) as anl,
        contextlib.closing(open_fabric("embedded", tmp_path / "cloud")) as cloud,
    ):
        monkeypatch.setenv("DIASPORA_CLOUD", cloud.url)
        yield Sides(tmp_path, anl, cloud)


def test_killed_again_and_again_it_loses_nothing(sides: Sides) -> None:
    for _ in range(3):
        sides.emit(20_000)
        with subprocess.Popen([*sides.command], stderr=subprocess.PIPE, text=True) as bridge:
            assert bridge.stderr is not None
            while "up" not in bridge.stderr.readline():
                pass
            bridge.kill()
    with subprocess.Popen([*sides.command], stderr=subprocess.DEVNULL) as bridge:
        sides.until_arrived()
        second = subprocess.run([*sides.command], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert second.returncode == 2
        assert (
            f"Another bridge works with the state in {sides.command[-1].removesuffix('site.toml')}state"
            in second.stderr
        )
        assert f"(process {bridge.pid})" in second.stderr
        bridge.send_signal(signal.SIGTERM)
        assert bridge.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(sides: Sides, number: signal.Signals) -> None:
    with subprocess.Popen([*sides.command, "--every", "0.1"], stderr=subprocess.PIPE, text=True) as bridge:
        sides.emit(100)
        sides.until_arrived()
        bridge.send_signal(number)
        _, said = bridge.communicate(timeout=PATIENCE)
        assert bridge.returncode == 0
    assert "anl to cloud: up" in said
    assert " sent, 0 wait" in said.splitlines()[-1]
    # Nothing is sent twice after an end in good order.
    done = subprocess.run([*sides.command, "--until-idle", "--limit", "30"], capture_output=True, text=True,
                          timeout=PATIENCE + 10, check=True)  # fmt: skip
    sent = int(done.stderr.splitlines()[-1].partition("cloud: ")[2].split()[0])
    assert sent < 50, "the bridge's own events, and none of the tasks"
