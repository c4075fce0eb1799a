from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from diaspora_parsl.campaigns.screening.progress import Display, Tally
from diaspora_parsl.cli.demo import OUTAGE, SPEEDS, VICTIM, Outage, globus_sites
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing import globus
from diaspora_parsl.testing.faults import Fault, Kill


class Recorder:
    """A place that notes what is done to it."""

    label = VICTIM

    def __init__(self) -> None:
        self.calls: list[tuple[str, Fault]] = []

    @property
    def domain(self) -> object:
        return self

    def refuses(self, fault: Fault) -> str | None:
        del fault
        return None

    def begin(self, fault: Fault) -> None:
        self.calls.append(("begin", fault))

    def end(self, fault: Fault) -> None:
        self.calls.append(("end", fault))


def test_the_site_is_killed_once_and_may_come_back_once() -> None:
    place = Recorder()
    outage = Outage(place, Display(Console(quiet=True)))
    progress = Tally(budget=100).progress(in_flight=1, now=0.0)
    outage(replace(progress, done=34))
    assert place.calls == []
    for done in (35, 36):
        outage(replace(progress, done=done))
    ((what, kill),) = place.calls
    assert (what, type(kill)) == ("begin", Kill)
    killed = outage.faults[0].at
    outage(replace(progress, done=90, now=killed + OUTAGE - 1))
    assert len(place.calls) == 1
    for seconds in (OUTAGE, OUTAGE + 1):
        outage(replace(progress, done=91, now=killed + seconds))
    assert place.calls == [("begin", kill), ("end", kill)]
    assert [(fault.what, fault.site) for fault in outage.faults] == [("killed", VICTIM), ("restored", VICTIM)]


def test_one_of_several_sites_is_the_victim() -> None:
    assert VICTIM in SPEEDS
    assert len(SPEEDS) == 3


def test_without_the_emulator_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(globus, "_NEEDS", ("no_such_module",))
    with pytest.raises(ConfigurationError, match=r"no_such_module .* pip install 'diaspora-parsl\[globus-test\]'"):
        globus_sites().__enter__()
