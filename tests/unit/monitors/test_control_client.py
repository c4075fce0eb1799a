"""Asking pools on a fabric that answer by hand."""

from __future__ import annotations

import threading
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.fabric.base import Fabric, open_fabric
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.monitors import control_client
from diaspora_parsl.monitors.control_client import Control, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    fabric = open_fabric(f"memory://{uuid.uuid4()}")
    yield fabric
    fabric.close()


class Voice:
    """Speaks as one pool."""

    def __init__(self, fabric: Fabric, name: str, run: str = "run") -> None:
        self._fabric = fabric
        self._builder = EventBuilder(f"/host/{name}/{run}")
        self.name = name

    def say(self, *payloads: ev.Payload) -> None:
        self._fabric.publish([self._builder.wrap(payload, "", "", time.time()) for payload in payloads])

    def begin(self, *endpoints: str) -> Voice:
        self.say(ev.PoolStarted(pool=self.name, endpoints=endpoints))
        return self


def ask(fabric: Fabric, *answering: Voice, endpoint: str = "alpha", pool: str = "", wait: float = 10.0) -> Outcome:
    """Ask for a drain, while these pools answer."""
    requests = fabric.subscribe([ev.TOPIC_CONTROL], "latest")
    ended = threading.Event()

    def answer() -> None:
        while not ended.is_set():
            for event in requests.read(0.05):
                if event.type == ev.EndpointDrainRequested.event_type():
                    for voice in answering:
                        voice.say(ev.RequestAnswered(request=event.id, endpoint="alpha", site="anl", state="draining",
                                                     reason="drained: disk", in_flight=1))  # fmt: skip

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        return Control(fabric, "a key", pool, wait).ask(endpoint, lambda: ev.EndpointDrainRequested(endpoint=endpoint))
    finally:
        ended.set()
        thread.join()
        requests.close()


def test_every_pool_that_has_the_endpoint_answers(fabric: Fabric) -> None:
    voices = [Voice(fabric, name).begin("alpha", "beta") for name in ("one", "two")]
    Voice(fabric, "three").begin("gamma")
    outcome = ask(fabric, *voices)
    assert {pool for pool, _ in outcome.answers} == {"one", "two"}
    assert not outcome.silent
    assert "alpha in pool one is draining: drained: disk; 1 attempt still there" in outcome.sentences()


def test_a_pool_that_says_nothing_is_named(fabric: Fabric) -> None:
    voice = Voice(fabric, "one").begin("alpha")
    Voice(fabric, "killed").begin("alpha")
    outcome = ask(fabric, voice, wait=0.5)
    assert outcome.is_followed
    assert outcome.silent == ("killed",)
    silent = ask(fabric, pool="killed", wait=0.2)
    assert not silent.is_followed
    assert "pool killed did not answer" in silent.sentences()[0]


def test_a_pool_that_ended_is_not_asked(fabric: Fabric) -> None:
    Voice(fabric, "one").begin("alpha").say(ev.PoolStopped(pool="one"))
    with pytest.raises(ConfigurationError, match="no pool that runs"):
        ask(fabric)


def test_an_unknown_endpoint_is_answered_with_those_that_exist(fabric: Fabric) -> None:
    Voice(fabric, "one").begin("alpha", "beta")
    with pytest.raises(ConfigurationError, match=r"endpoint 'alpah'.*pool one has alpha, beta"):
        ask(fabric, endpoint="alpah")


def test_a_pool_whose_start_was_trimmed_away_is_found_by_its_status(fabric: Fabric) -> None:
    voice = Voice(fabric, "one")
    ended = threading.Event()

    def status() -> None:
        while not ended.wait(0.1):
            voice.say(
                ev.EndpointStatus(endpoint="alpha", site="anl", state="up", slots=1, in_flight=0, finished=0, rate=0)
            )

    thread = threading.Thread(target=status)
    thread.start()
    try:
        assert ask(fabric, voice).is_followed
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("text", ["", "soon", "5", "0s", "-1m", "1w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="Write 90s"):
        control_client.duration(text)


def test_times_have_a_zone_or_count_from_now() -> None:
    assert control_client.moment("2026-01-31T12:00:00+01:00", "--from") == datetime(2026, 1, 31, 11, tzinfo=UTC)
    assert 3500 < (control_client.moment("+1h", "--to") - datetime.now(UTC)).total_seconds() <= 3600
    assert control_client.rfc3339(datetime(2026, 1, 31, 11, tzinfo=UTC)) == "2026-01-31T11:00:00.000Z"
    for wrong in ("tomorrow", "2026-01-31T12:00:00", "+soon"):
        with pytest.raises(ConfigurationError, match="--from"):
            control_client.moment(wrong, "--from")
