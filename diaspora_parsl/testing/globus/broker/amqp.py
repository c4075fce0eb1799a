"""One AMQP 0-9-1 connection of the broker: frames, handshake, heartbeats, close."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from pika import frame, spec

from diaspora_parsl.testing.globus.broker.amqp_channel import UNEXPECTED_FRAME, AmqpChannel
from diaspora_parsl.testing.globus.broker.queues import (
    ACCESS_REFUSED,
    NOT_ALLOWED,
    NOT_IMPLEMENTED,
    Message,
    Queues,
    RefusedError,
)

_FRAME_ERROR: Final = 501
_SYNTAX_ERROR: Final = 502
_COMMAND_INVALID: Final = 503
_CHANNEL_ERROR: Final = 504
#: Codes that close the connection, not only a channel (AMQP 0-9-1, section 1.2 of its reference).
_HARD: Final = frozenset(
    {_FRAME_ERROR, _SYNTAX_ERROR, _COMMAND_INVALID, _CHANNEL_ERROR, UNEXPECTED_FRAME, NOT_ALLOWED, NOT_IMPLEMENTED}
)

_GREETING: Final = b"AMQP\x00\x00\x09\x01"
_CHANNELS: Final = 2047
#: Frame header: type, channel, payload size. One byte ends the frame.
_HEAD: Final = struct.Struct(">BHI")
_AROUND: Final = _HEAD.size + spec.FRAME_END_SIZE
#: Unwritten bytes above which deliveries stop, and above which requests are not read.
_HIGH_WATER: Final = 1 << 18
_FLOOD: Final = 1 << 22
#: Seconds in which the client must finish the handshake, and confirm a close.
_REPLY_LIMIT: Final = 10.0

_ABILITIES: Final = {
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
    "authentication_failure_close": True,
}


class Terms(Struct, frozen=True, kw_only=True):
    """Connection parameters offered to every client."""

    user: str
    password: str
    frame_max: int
    """Largest frame in bytes."""
    heartbeat: int
    """Seconds between heartbeats; 0: none."""


class Connection(asyncio.Protocol):
    """One client's connection; a `Wire` for its channels.

    Args:
        queues: Queues of the broker.
        terms: Parameters offered to the client.
        begun: Called with the connection when it opens.
        ended: Called with the connection when it is lost.
    """

    def __init__(
        self,
        queues: Queues,
        terms: Terms,
        begun: Callable[[Connection], None],
        ended: Callable[[Connection], None],
    ) -> None:
        self._queues = queues
        self._terms = terms
        self._begun = begun
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._channels: dict[int, AmqpChannel] = {}
        self._greeted = False
        self._awaited: type[Any] | None = spec.Connection.StartOk  # next method of the handshake; None: done
        self._closing = False  # the broker sent Close and waits for CloseOk
        self._writable = True
        self._frame_max = terms.frame_max
        self._silence_limit = 0.0  # seconds without a heartbeat until the connection ends; 0: no limit
        self._last_activity = self._loop.time()
        self._unwritten = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None

    # --- called by asyncio ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the protocol header."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._deadline = self._loop.call_later(_REPLY_LIMIT, transport.abort)
        self._begun(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - unused
        """Requeue unacknowledged deliveries."""
        self._cancel_timers()
        self._end_channels()
        self._ended(self)

    def data_received(self, data: bytes) -> None:
        """Run the methods of the client."""
        self._last_activity = self._loop.time()
        self._buffer += data
        self._read()

    def pause_writing(self) -> None:
        """Stop deliveries: the client reads too slowly."""
        self._writable = False

    def resume_writing(self) -> None:
        """Resume deliveries."""
        self._writable = True
        self._transport.resume_reading()
        self._read()
        for channel in list(self._channels.values()):
            channel.state.resume()

    def abort(self) -> None:
        """Abort the connection, as a network failure does."""
        self._transport.abort()

    # --- called by channels ---------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Return whether another delivery may be written now."""
        return self._writable and not self._closing and not self._transport.is_closing()

    def now(self) -> float:
        """Return the time of the loop in seconds."""
        return self._loop.time()

    def send(self, number: int, method: Any) -> None:
        """Write a method to a channel."""
        self._write(frame.Method(number, method).marshal())

    def send_message(self, number: int, method: Any, message: Message) -> None:
        """Write a method with its message to a channel."""
        step = self._frame_max - _AROUND
        body = message.body
        parts = (body[start : start + step] for start in range(0, len(body), step))
        self._write(
            frame.Method(number, method).marshal()
            + _frame(spec.FRAME_HEADER, number, message.header)
            + b"".join(_frame(spec.FRAME_BODY, number, part) for part in parts)
        )

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    # --- frames ---------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while (raw := self._next_frame()) is not None:
                self._take(raw)
        except RefusedError as error:
            self._close(error)

    def _next_frame(self) -> bytes | None:
        """Return one complete frame, or None if it is incomplete or the client does not read replies."""
        if self._transport.is_closing() or not (self._greeted or self._greet()):
            return None
        if not self._writable and self._transport.get_write_buffer_size() > _FLOOD:
            self._transport.pause_reading()
            return None
        if len(self._buffer) < _HEAD.size:
            return None
        size = _HEAD.unpack_from(self._buffer)[2] + _AROUND
        if size > self._frame_max:
            self._buffer.clear()
            raise RefusedError(_FRAME_ERROR, f"FRAME_ERROR - {size} bytes exceed the negotiated {self._frame_max}")
        if len(self._buffer) < size:
            return None
        raw = bytes(self._buffer[:size])
        del self._buffer[:size]
        return raw

    def _greet(self) -> bool:
        """Check the protocol header; return whether it is complete and supported."""
        if len(self._buffer) < len(_GREETING):
            return False
        if not self._buffer.startswith(_GREETING):
            self._write(frame.ProtocolHeader().marshal())  # section 2.2.4: the supported protocol
            self._transport.close()
            return False
        del self._buffer[: len(_GREETING)]
        self._greeted = True
        properties = {"product": "diaspora_parsl", "capabilities": dict(_ABILITIES)}
        self.send(0, spec.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
        return True

    def _take(self, raw: bytes) -> None:
        known = _decode(raw)
        number = known.channel_number
        if self._closing:
            method = getattr(known, "method", None)
            if isinstance(method, (spec.Connection.CloseOk, spec.Connection.Close)):
                self._hang_up()
        elif isinstance(known, frame.Heartbeat):
            return
        elif number == 0:
            if not isinstance(known, frame.Method):
                raise RefusedError(UNEXPECTED_FRAME, "UNEXPECTED_FRAME - a message on channel 0")
            self._control(known.method)
        elif self._awaited is not None:
            raise RefusedError(_CHANNEL_ERROR, "CHANNEL_ERROR - a channel before the connection was opened")
        elif isinstance(known, frame.Method) and isinstance(known.method, spec.Channel.Open):
            self._open_channel(number)
        elif number in self._channels:
            self._hand_to(self._channels[number], known, raw)
        else:
            raise RefusedError(_CHANNEL_ERROR, f"CHANNEL_ERROR - channel {number} is not open")

    # --- the connection itself ------------------------------------------------------------------------------------

    def _control(self, method: Any) -> None:
        if isinstance(method, spec.Connection.Close):
            self._end_channels()
            self.send(0, spec.Connection.CloseOk())
            self._hang_up()
        elif self._awaited is None or not isinstance(method, self._awaited):
            raise RefusedError(_COMMAND_INVALID, f"COMMAND_INVALID - {method.NAME} on channel 0")
        elif isinstance(method, spec.Connection.StartOk):
            self._authenticate(method)
        elif isinstance(method, spec.Connection.TuneOk):
            self._tune(method)
        else:
            self._open(method)

    def _authenticate(self, method: Any) -> None:
        wanted = f"\0{self._terms.user}\0{self._terms.password}".encode()
        response = method.response if isinstance(method.response, bytes) else str(method.response).encode()
        if method.mechanism != "PLAIN" or response != wanted:
            raise RefusedError(
                ACCESS_REFUSED, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN"
            )
        self._awaited = spec.Connection.TuneOk
        self.send(0, spec.Connection.Tune(_CHANNELS, self._terms.frame_max, self._terms.heartbeat))

    def _tune(self, method: Any) -> None:
        if method.frame_max > self._terms.frame_max or 0 < method.frame_max < spec.FRAME_MIN_SIZE:
            raise RefusedError(NOT_ALLOWED, f"NOT_ALLOWED - negotiated frame_max = {method.frame_max}")
        self._awaited = spec.Connection.Open
        self._frame_max = method.frame_max or self._terms.frame_max
        if method.heartbeat:
            self._silence_limit = 2.0 * method.heartbeat
            self._watch(method.heartbeat / 2)

    def _open(self, method: Any) -> None:
        if method.virtual_host != "/":
            raise RefusedError(NOT_ALLOWED, f"NOT_ALLOWED - vhost '{method.virtual_host}' not found")
        self._awaited = None
        self._cancel_deadline()
        self.send(0, spec.Connection.OpenOk())

    def _watch(self, period: float) -> None:
        """Send a heartbeat; abort a connection on which the client neither sends nor reads."""
        unwritten = self._transport.get_write_buffer_size()
        now = self._loop.time()
        if unwritten < self._unwritten:
            self._last_activity = now
        self._unwritten = unwritten
        if now - self._last_activity > self._silence_limit:
            self._transport.abort()
            return
        if self._writable:
            self._write(frame.Heartbeat().marshal())
        self._beat = self._loop.call_later(period, self._watch, period)

    def _close(self, error: RefusedError) -> None:
        """Send Close with a reason and requeue unacknowledged deliveries."""
        if self._closing or self._transport.is_closing():
            return
        self._closing = True
        self._end_channels()
        self.send(0, spec.Connection.Close(error.code, _short(error.text), 0, 0))
        self._cancel_deadline()
        self._deadline = self._loop.call_later(_REPLY_LIMIT, self._transport.abort)

    def _hang_up(self) -> None:
        self._transport.close()
        self._cancel_deadline()
        self._deadline = self._loop.call_later(_REPLY_LIMIT, self._transport.abort)  # the client may not read the rest

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cancel_timers(self) -> None:
        self._cancel_deadline()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    # --- channels -------------------------------------------------------------------------------------------------

    def _open_channel(self, number: int) -> None:
        if number in self._channels or number > _CHANNELS:
            raise RefusedError(_CHANNEL_ERROR, f"CHANNEL_ERROR - channel {number} is open, or out of range")
        self._channels[number] = AmqpChannel(number, self, self._queues)
        self.send(number, spec.Channel.OpenOk())

    def _hand_to(self, channel: AmqpChannel, known: Any, raw: bytes) -> None:
        method = getattr(known, "method", None)
        if isinstance(method, spec.Channel.CloseOk):
            del self._channels[channel.number]
        elif isinstance(method, spec.Channel.Close):
            del self._channels[channel.number]
            self._queues.end([channel.state])
            self.send(channel.number, spec.Channel.CloseOk())
        elif not channel.closing:  # else it was sent before the client saw the close
            try:
                if isinstance(known, frame.Header):
                    channel.take_header(raw[_HEAD.size : -spec.FRAME_END_SIZE], known.body_size)
                elif isinstance(known, frame.Body):
                    channel.take_body(known.fragment)
                else:
                    channel.handle(method)
            except RefusedError as error:
                if error.code in _HARD:
                    raise
                self._close_channel(channel, error, method or spec.Basic.Publish())

    def _close_channel(self, channel: AmqpChannel, error: RefusedError, method: Any) -> None:
        channel.closing = True
        self._queues.end([channel.state])
        self.send(
            channel.number,
            spec.Channel.Close(error.code, _short(error.text), method.INDEX >> 16, method.INDEX & 0xFFFF),
        )

    def _end_channels(self) -> None:
        channels = [channel.state for channel in self._channels.values()]
        self._channels.clear()
        self._queues.end(channels, self)


def _frame(kind: int, number: int, payload: bytes) -> bytes:
    return _HEAD.pack(kind, number, len(payload)) + payload + bytes([spec.FRAME_END])


def _decode(raw: bytes) -> Any:
    """Decode a frame with pika.

    Raises:
        RefusedError: The bytes are no frame.
    """
    try:
        return frame.decode_frame(raw)[1]
    except KeyError:
        raise RefusedError(_COMMAND_INVALID, "COMMAND_INVALID - unknown method") from None
    except Exception as error:  # pika's codec raises many types
        raise RefusedError(_FRAME_ERROR, f"FRAME_ERROR - {type(error).__name__}") from error


def _short(text: str) -> str:
    """Cut a text to the length of a short string of AMQP."""
    return text.encode()[:255].decode(errors="ignore")
