from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console

from diaspora_parsl.campaigns.demo import OUTAGE, SPEEDS, VICTIM, Outage, Site
from diaspora_parsl.campaigns.progress import Display, Tally


class Recorder:
    endpoint: Any = None

    def __init__(self) -> None:
        self.calls: list[str] = []

    def kill(self) -> int:
        self.calls.append("kill")
        return 5

    def restore(self) -> None:
        self.calls.append("restore")

    def remove(self) -> None:
        self.calls.append("remove")


def test_the_site_is_killed_once_and_may_come_back_once() -> None:
    recorder = Recorder()
    site: Site = recorder
    outage = Outage(site, Display(Console(quiet=True)))
    progress = Tally(budget=100).progress(in_flight=1, now=0.0)
    outage(replace(progress, done=34))
    assert recorder.calls == []
    for done in (35, 36):
        outage(replace(progress, done=done))
    assert recorder.calls == ["kill"]
    killed = outage.faults[0].at
    outage(replace(progress, done=90, now=killed + OUTAGE - 1))
    assert recorder.calls == ["kill"]
    for seconds in (OUTAGE, OUTAGE + 1):
        outage(replace(progress, done=91, now=killed + seconds))
    assert recorder.calls == ["kill", "restore"]
    assert [(fault.what, fault.site) for fault in outage.faults] == [("killed", VICTIM), ("restored", VICTIM)]


def test_one_of_several_sites_is_the_victim() -> None:
    assert VICTIM in SPEEDS
    assert len(SPEEDS) == 3
