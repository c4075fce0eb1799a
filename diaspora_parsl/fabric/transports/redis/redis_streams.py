"""Reads and writes Redis Streams by commands, independent of the client library."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import MAX_BYTES, Event, decode, encode
from diaspora_parsl.fabric.base import Position

#: Events per stream entry. An XADD costs redis-py about 10 µs of CPU, pipelined or not; 50 events share it.
ENTRY_EVENTS: Final = 50
_READ_ENTRIES: Final = 100
_FIELD: Final = b"e"
_CURSOR: Final = re.compile(r"\d+-\d+")
_START: Final = "0-0"
_SEQUENCE_MAX: Final = 2**64 - 1
_batch_decoder: Final = msgspec.json.Decoder(list[Event])
_raw_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])

Command: TypeAlias = tuple[Any, ...]


class Link(Protocol):
    """Connection to a server, opened on demand and closed after every error."""

    #: Number of connections opened so far.
    connects: int

    @property
    def is_live(self) -> bool:
        """Whether a connection is open for the next `run`."""
        ...

    def run(self, *commands: Command) -> list[Any]:
        """Send the commands as a batch and return their replies, error replies included.

        Raises:
            FabricUnavailableError: The connection failed, or the time-out ended.
        """
        ...

    def refused(self, error: Exception) -> FabricUnavailableError:
        """Return the exception for an error reply."""
        ...

    def interrupt(self) -> None:
        """Wake a thread that waits for a reply; callable from any thread."""
        ...

    def drop(self) -> None:
        """Close the connection; the next `run` opens a new one."""
        ...


def appends(events: Sequence[Event], prefix: str, maxlen: int) -> list[Command]:
    """Return the XADD commands of the events: one stream per topic, up to `ENTRY_EVENTS` events per entry.

    The body of an entry is a JSON array of events, which CloudEvents calls the JSON batch format.
    """
    commands: list[Command] = []
    by_topic: dict[str, list[bytes]] = {}
    for event in events:
        by_topic.setdefault(event.topic, []).append(encode(event))
    for topic, encoded in by_topic.items():
        for start in range(0, len(encoded), ENTRY_EVENTS):
            body = b"[%b]" % b",".join(encoded[start : start + ENTRY_EVENTS])
            commands.append(("XADD", prefix + topic, "MAXLEN", "~", maxlen, "*", _FIELD, body))
    return commands


def decode_entry(fields: Any) -> tuple[list[Event], int]:
    """Return the events of a stream entry and the number of malformed ones; never raises."""
    if not isinstance(fields, list) or _FIELD not in fields[:-1:2]:
        return [], 1
    body = fields[fields[::2].index(_FIELD) * 2 + 1]
    if len(body) > ENTRY_EVENTS * MAX_BYTES:
        return [], 1
    try:
        if len(body) <= MAX_BYTES:
            return _batch_decoder.decode(body), 0
    except (ValueError, RecursionError):
        pass  # one bad event must not hide its neighbours: below, one by one
    try:
        raws = _raw_decoder.decode(body)
    except (ValueError, RecursionError):
        return [], 1
    events = []
    for raw in raws:
        try:
            events.append(decode(bytes(raw)))
        except ValueError:
            continue  # counted by the caller
    return events, len(raws) - len(events)


class StreamSubscription:
    """A reader with its own connection; see `diaspora_parsl.fabric.base.Subscription`.

    A cursor is the id of the last stream entry that was read. No consumer groups: they lose the order of a key.

    Args:
        link: Connection, used by this reader only.
        prefix: Prefix of the stream names.
        topics: Topics to read.
        position: Start position.
        wait: Seconds that one command may block; well below the socket timeout of the link.
    """

    def __init__(self, link: Link, prefix: str, topics: Sequence[str], position: Position, wait: float) -> None:
        self.resyncs = 0
        self.malformed = 0
        self.position: dict[str, str] = dict.fromkeys(topics, _START)
        self._link = link
        self._wait = wait
        self._keys = {topic: (prefix + topic).encode() for topic in topics}
        self._topics = {key: topic for topic, key in self._keys.items()}
        self._checked = 0
        self._closed = False
        self._busy = threading.Lock()
        self._from_start: set[str] = set()
        if position == "earliest":
            self._from_start = set(topics)
        elif position == "latest":
            self.position |= {topic: _last(info) for topic, info in self._stream_infos().items()}
            self._checked = link.connects
        else:
            self._from_start = {topic for topic in topics if topic not in position}
            self.position |= {topic: cursor for topic, cursor in position.items() if topic in self._keys}
            for cursor in self.position.values():
                if not _CURSOR.fullmatch(cursor):
                    raise ConfigurationError(f"{cursor!r} is no cursor of Redis. Give back what `position` was here.")

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def read(self, timeout: float) -> list[Event]:
        """See `diaspora_parsl.fabric.base.Subscription.read`.

        Raises:
            FabricUnavailableError: The server did not reply within the socket timeout.
        """
        deadline = time.monotonic() + timeout
        with self._busy:
            try:
                while not self._closed:
                    remaining = deadline - time.monotonic()
                    events = self._read_once(min(remaining, self._wait))
                    if events or remaining <= self._wait:
                        return events
            except FabricUnavailableError:
                if not self._closed:  # `close` breaks the connection on purpose
                    raise
            self._link.drop()
            return []

    def _read_once(self, seconds: float) -> list[Event]:
        if not self._link.is_live or self._checked != self._link.connects:
            self._check_cursors()
        block = ("BLOCK", max(1, int(seconds * 1000))) if seconds > 0 else ()  # BLOCK 0 would wait for ever
        keys, cursors = self._keys.values(), self.position.values()
        reply, *oldest = self._link.run(
            ("XREAD", "COUNT", _READ_ENTRIES, *block, "STREAMS", *keys, *cursors),
            *(("XRANGE", key, "-", "+", "COUNT", 1) for key in keys),  # on the same way: answered after it
        )
        if isinstance(reply, Exception):
            raise self._link.refused(reply)
        if not reply:
            return []
        streams = [(self._topics[key], entries) for key, entries in reply]
        read = {topic for topic, _ in streams}
        self._count_gaps({topic: first for topic, first in zip(self._keys, oldest, strict=True) if topic in read})
        for topic, entries in streams:
            self.position[topic] = entries[-1][0].decode()
        entries = [entry for _, entries in streams for entry in entries]
        if len(streams) > 1:  # nearer to the order in which things happened than topic by topic
            entries.sort(key=lambda entry: _number(entry[0].decode()))
        result: list[Event] = []
        for _, fields in entries:
            events, malformed = decode_entry(fields)
            self.malformed += malformed
            result += events
        return result

    def _stream_infos(self) -> dict[str, dict[bytes, Any]]:
        """Return XINFO STREAM by topic; empty for missing streams."""
        replies = self._link.run(*(("XINFO", "STREAM", key) for key in self._keys.values()))
        infos: dict[str, dict[bytes, Any]] = {}
        for topic, reply in zip(self._keys, replies, strict=True):
            if isinstance(reply, Exception):
                if "no such key" not in str(reply):
                    raise self._link.refused(reply)
                infos[topic] = {}
            else:
                infos[topic] = dict(zip(reply[::2], reply[1::2], strict=True))
        return infos

    def _check_cursors(self) -> None:
        """After a (re)connect, check that the server still matches the cursors."""
        for topic, info in self._stream_infos().items():
            first = info.get(b"first-entry")
            if topic in self._from_start:
                self._from_start.discard(topic)
                if first:  # just before it, so that what is trimmed from now on is noticed
                    self.position[topic] = _before(first[0].decode())
            elif _number(self.position[topic]) > _number(_last(info)):
                # The server restarted empty or from an older state.
                self.resyncs += 1
                self.position[topic] = _last(info)
        self._checked = self._link.connects

    def _count_gaps(self, firsts: dict[str, Any]) -> None:
        """Detect entries that were trimmed between the cursor and the last read.

        Looking after the reading errs on the safe side: it may report a gap that is none, but never the reverse.
        """
        for topic, reply in firsts.items():
            if not isinstance(reply, list) or not reply:
                self.resyncs += 1  # read a moment ago, and all trimmed since
                continue
            oldest, cursor = reply[0][0].decode(), self.position[topic]
            is_gap = _number(_before(oldest)) > _number(cursor)
            if is_gap and (cursor != _START or self._ever_trimmed(topic)):
                self.resyncs += 1

    def _ever_trimmed(self, topic: str) -> bool:
        info = self._stream_infos()[topic]
        length = info.get(b"length", 0)
        return bool(info.get(b"entries-added", length) > length)  # servers before Redis 7 do not say

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Subscription.close`."""
        self._closed = True
        if self._busy.acquire(blocking=False):
            try:
                self._link.drop()
            finally:
                self._busy.release()
        else:
            self._link.interrupt()  # the reading thread drops the connection itself


def _last(info: dict[bytes, Any]) -> str:
    last: bytes = info.get(b"last-generated-id", _START.encode())
    return last.decode()


def _number(cursor: str) -> tuple[int, int]:
    milliseconds, _, sequence = cursor.partition("-")
    return int(milliseconds), int(sequence)


def _before(cursor: str) -> str:
    """Return the greatest id below this one."""
    milliseconds, sequence = _number(cursor)
    return f"{milliseconds}-{sequence - 1}" if sequence else f"{max(milliseconds - 1, 0)}-{_SEQUENCE_MAX}"
