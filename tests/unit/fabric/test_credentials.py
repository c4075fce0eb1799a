"""Passwords and keys stay out of reprs, errors, logs and events, whoever is asked."""

from __future__ import annotations

import logging
import os
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import events as ev
from diaspora_parsl.errors import DiasporaParslError
from diaspora_parsl.events.signing import signed
from diaspora_parsl.executors.inbox.admission import Signed
from diaspora_parsl.executors.inbox.listener import Listener
from diaspora_parsl.executors.pool import ResilientPoolExecutor
from diaspora_parsl.fabric import base
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.consumer import Consumer
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.fabric.publisher import Publisher
from diaspora_parsl.fabric.transports.redis.embedded_server import Server
from diaspora_parsl.fabric.transports.redis.transport import _options
from diaspora_parsl.monitors.control_client import Control
from diaspora_parsl.monitors.view.event_feed import EventFeed

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cret-" + secrets.token_hex(8)
AWAY = f"redis://user:{SECRET}@127.0.0.1:1/0?timeout=0.1"


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        "diaspora_parsl.fabric.transports.redis.embedded_server.secrets.token_urlsafe", lambda _: SECRET
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(thing: Any) -> str:
    return f"{thing!r} {thing} {getattr(thing, '__dict__', {})!r}"


def test_no_object_shows_what_it_holds(run_dir: Path) -> None:
    fabric = open_fabric("embedded", run_dir)
    assert SECRET in fabric.url
    publisher = Publisher(fabric, source="/s", outbox_path=run_dir / "outbox.sqlite")
    reader = Consumer(fabric, ev.TOPICS, lambda _: None)
    server = Server(run_dir / "another")
    feed = EventFeed(lambda: fabric.url)
    subscription = fabric.subscribe(ev.TOPICS)
    pool = ResilientPoolExecutor(endpoints=[ThreadPoolExecutor(label="alpha")], fabric=AWAY)
    control = Control(fabric, SECRET)
    things: list[Any] = [fabric, publisher, reader, server, feed, subscription, pool, control, Signed(SECRET)]
    things += [Listener({}, "", print, key=SECRET), _options(AWAY)]
    try:
        publisher.emit(ev.PoolStopped(pool="p"), "p")
        assert SECRET not in "".join(map(repr, things))
        assert SECRET not in shown(subscription) + shown(publisher) + shown(reader)
    finally:
        publisher.close()
        reader.close()
        feed.close()
        server.stop()
        fabric.close()


@pytest.mark.parametrize("scheme", sorted(base._TRANSPORTS))
@pytest.mark.parametrize(
    "rest",
    ["user:{}@host:port/x/y", "user:{}@host/?maxlen=0", "user:{}@[/", "host?password={}&x=1", "user:{}@host:1/#b"],
)
def test_no_error_about_a_url_quotes_its_password(scheme: str, rest: str, run_dir: Path) -> None:
    url = f"{scheme}://{rest.format(SECRET)}"
    try:
        open_fabric(url, run_dir).close()
    except DiasporaParslError as error:
        chain = [error, error.__cause__, error.__context__ if not error.__suppress_context__ else None]
        assert SECRET not in " ".join(map(repr, chain))


def test_no_log_and_no_event_quotes_a_password(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "diaspora_parsl")
    kept = open_fabric(f"memory://{secrets.token_hex(4)}")
    log = kept.subscribe(ev.TOPICS, "earliest")
    publisher = Publisher(lambda: open_fabric(AWAY), source="/s")
    reader = Consumer(lambda: open_fabric(AWAY), ev.TOPICS, lambda _: None)
    reported = Publisher(kept, source="/t")
    try:
        end = time.monotonic() + 10
        while not ("cannot be reached" in caplog.text and publisher.stats().outages) and time.monotonic() < end:
            publisher.emit(ev.PoolStarted(pool="p", endpoints=(), run_dir=str(run_dir)), "p")
            time.sleep(0.02)
        with pytest.raises(DiasporaParslError) as error:
            open_fabric(AWAY).publish([EventBuilder("/s").wrap(ev.PoolStopped(pool="p"), "p", "p", 1.0)])
        reported.emit(ev.EndpointDown(endpoint="e", site="s", reason=str(error.value)), "e")
    finally:
        publisher.close(0.2)
        reader.close()
        reported.close()
    assert "cannot be reached" in caplog.text
    events = log.read(1.0)
    log.close()
    kept.close()
    assert len(events) == 1
    assert SECRET not in caplog.text + b"".join(map(ev.encode, events)).decode()


def test_a_signature_does_not_tell_the_key() -> None:
    asked = EventBuilder("/s").wrap(ev.EndpointResumeRequested(endpoint="alpha"), "alpha", "alpha", 1.0)
    assert SECRET not in ev.encode(signed(asked, SECRET)).decode()


def test_the_address_of_a_run_is_for_its_owner_alone(run_dir: Path) -> None:
    before = os.umask(0)  # the worst that a user may have
    try:
        fabric = open_fabric("embedded", run_dir)
    finally:
        os.umask(before)
    try:
        holding = [path for path in run_dir.rglob("*") if path.is_file() and SECRET in path.read_text(errors="replace")]
        assert {path.name for path in holding} == {"fabric.json", "server.conf"}
        assert {path.stat().st_mode & 0o777 for path in holding} == {0o600}
    finally:
        fabric.close()
