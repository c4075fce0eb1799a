"""Parsl's worker-side monitoring on the fabric: never in a task's way, lost with no fabric that comes back."""

from __future__ import annotations

import getpass
import logging
import multiprocessing.util
import os
import pickle
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue
from pathlib import Path
from types import FrameType
from typing import Any, Final

from parsl.monitoring.radios.base import MonitoringRadioReceiver, MonitoringRadioSender, RadioConfig
from parsl.utils import RepresentationMixin

from diaspora_parsl.errors import ConfigurationError, DiasporaParslError, FabricUnavailableError
from diaspora_parsl.events import TOPIC_RESOURCE, TOPIC_TASK, Event
from diaspora_parsl.fabric.address import DATA, VARIABLE, read_record
from diaspora_parsl.fabric.base import Fabric, Position, Subscription, open_fabric, redacted
from diaspora_parsl.fabric.consumer import Consumer
from diaspora_parsl.fabric.publisher import Publisher

from ..discovery import open_live
from . import messages

logger = logging.getLogger(__name__)

#: Seconds that a process which ends gives to what it has not sent; the rest waits in its outbox.
_LAST_WORDS: Final = 1.0
#: Seconds that a receiver which ends reads on, at most.
_LAST_READS: Final = 2.0
#: Seconds that a receiver waits in one go for the run's fabric to be opened.
_NOT_YET: Final = 1.0
#: Bytes that a monitoring process may have under way to its worker.
_BUFFER: Final = 1 << 20


class FabricRadio(RadioConfig, RepresentationMixin):
    """``remote_monitoring_radio=FabricRadio()`` publishes what runs on workers to the fabric and to Parsl's database.

    A message costs the task some microseconds: one connection per worker process, made in the background, sends them
    off. While the fabric is away they wait in a file on the node's own disk. The package must be installed on the
    workers.

    Args:
        fabric: URL of the fabric, as workers reach it; it travels with each task, password included. If not given,
            workers look into the environment variable ``DIASPORA_PARSL_FABRIC``, and then into the run directory, for
            the fabric of a pool or a `FabricMonitoringHub`.
        site: the facility the workers belong to, for bridges.
        outbox: directory on the nodes' own disks for what waits; in the temporary directory if not given.

    Raises:
        ConfigurationError: no such fabric can be reached from a worker.
    """

    def __init__(self, *, fabric: str | None = None, site: str = "", outbox: str | None = None) -> None:
        if fabric is not None and (not isinstance(fabric, str) or "://" not in fabric):
            raise ConfigurationError(
                f"FabricRadio(fabric={fabric!r}): workers need an address. Write the URL of the fabric, or leave it "
                "out for that of the run."
            )
        if fabric is not None:
            open_fabric(fabric).close()  # refuses what nobody can open, contacts nobody
        self.fabric = fabric
        self.site = site
        self.outbox = outbox
        self.channel = secrets.token_hex(8)
        self.run_dir = ""

    def __repr__(self) -> str:
        shown = redacted(self.fabric) if self.fabric else None
        return f"FabricRadio(fabric={shown!r}, site={self.site!r}, outbox={self.outbox!r})"

    def create_receiver(self, *, run_dir: str, resource_msgs: Queue[Any]) -> MonitoringRadioReceiver:
        """Called by Parsl, where the workflow runs."""
        self.run_dir = str(Path(run_dir).resolve())
        database = resource_msgs.database if isinstance(resource_msgs, messages.Tee) else resource_msgs
        return FabricRadioReceiver(self, None if database is None else database.put)

    def create_sender(self) -> MonitoringRadioSender:
        """Called by Parsl for each message of each task: gives what this process has already."""
        return _sender_of(self)

    def open(self) -> Fabric:
        """The fabric, as it is reached from here.

        Raises:
            DiasporaParslError: not now.
        """
        url = self.fabric or os.environ.get(VARIABLE)
        return open_fabric(url) if url else open_live(None, Path(self.run_dir))


# --- on workers -----------------------------------------------------------------------------------------------------


class FabricRadioSender(MonitoringRadioSender):
    """One per process and radio; `send` never blocks and never raises.

    Parsl measures a task from a process that it forks off for that alone. Such a one lives as long as its task, which
    waits for its end: it makes no connection, but hands its messages to its parent.
    """

    def __init__(self, radio: FabricRadio) -> None:
        self._pid = os.getpid()
        place = [os.environ.get(f"PARSL_WORKER_{name}", "") for name in ("BLOCK_ID", "POOL_ID", "RANK")]
        folder = Path(radio.outbox or Path(tempfile.gettempdir()) / f"diaspora-parsl-{getpass.getuser()}")
        # A worker that takes the place of a dead one sends what that left; without a place in a pool, none does.
        name = "-".join([radio.channel, *place] if any(place) else [radio.channel, str(self._pid)])
        self._publisher = Publisher(
            radio.open,
            source=f"/{radio.site or 'parsl'}/radio/{radio.channel}/{socket.gethostname()}/{self._pid}",
            originsite=radio.site,
            outbox_path=folder / f"{name}.sqlite",
        )
        self._inner, self._outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._outer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._outer.setblocking(False)
        self._relay_thread = threading.Thread(target=self._relay, name="diaspora-radio-relay", daemon=True)
        self._relay_thread.start()

    @property
    def is_of_this_process(self) -> bool:
        """False in a forked child."""
        return self._pid == os.getpid()

    def send(self, message: object) -> None:
        """Queue one message of Parsl's monitoring for publication."""
        try:
            if self.is_of_this_process:
                for payload, subject, key in messages.payloads(message):
                    self._publisher.emit(payload, subject, key)
            else:
                self._outer.send(pickle.dumps(message))
        except Exception as error:  # noqa: BLE001 - a message is worth no task
            logger.warning("A message of Parsl's monitoring is not published: %r", error)

    def _relay(self) -> None:
        """Publish the messages of forked children."""
        with self._inner:
            while message := self._inner.recv(_BUFFER):
                self.send(pickle.loads(message))  # noqa: S301 - from children of this process, through its own socket

    def close(self) -> None:
        """Send what waits, within a second; the rest stays in the outbox."""
        if self.is_of_this_process and self._relay_thread.is_alive():
            self._outer.send(b"")
            self._relay_thread.join(_LAST_WORDS)
            self._publisher.close(_LAST_WORDS)
            self._outer.close()


_senders: dict[str, FabricRadioSender] = {}
_guard = threading.Lock()


def _sender_of(radio: FabricRadio) -> FabricRadioSender:
    sender = _senders.get(radio.channel)
    if sender is None:
        with _guard:
            sender = _senders.get(radio.channel)
            if sender is None:
                sender = _senders[radio.channel] = FabricRadioSender(radio)
                # A process of multiprocessing, as workers are, ends without a word to `atexit`.
                multiprocessing.util.Finalize(None, sender.close, exitpriority=10)
                _close_on_sigterm(sender)
    return sender


def _close_on_sigterm(sender: FabricRadioSender) -> None:
    """Have SIGTERM, with which HTEX ends its workers, send what waits; then it ends the process as before.

    A short task may end before the sender is connected, and its messages would be lost with the worker.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may set a handler
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL:
        return  # somebody else decides what SIGTERM means here

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        try:
            sender.close()
        finally:
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def close_senders(channel: str) -> None:
    """End what this process sends for a radio."""
    with _guard:
        sender = _senders.pop(channel, None)
    if sender is not None:
        sender.close()


def _after_fork_in_child() -> None:
    global _guard  # noqa: PLW0603 - another thread of the parent may have held it
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


# --- where the workflow runs ----------------------------------------------------------------------------------------


class FabricRadioReceiver(MonitoringRadioReceiver):
    """Writes the messages of the senders of one radio to Parsl's database.

    Args:
        radio: whose senders.
        put: takes messages for the database; None if there is none, and nothing is read.
    """

    def __init__(self, radio: FabricRadio, put: Callable[[messages.Message], None] | None) -> None:
        self._channel = radio.channel
        self._mark = f"/radio/{radio.channel}/"
        self._put = put
        self._was_quiet = threading.Event()
        self._took = False
        self._malformed = 0
        self._reader: Consumer | None = None
        if put is not None:
            self._reader = Consumer(
                _Opener(radio), (TOPIC_TASK, TOPIC_RESOURCE), self._on_events, on_alive=self._on_alive, wait=0.2
            )

    def shutdown(self) -> None:
        """Take what is on the fabric already, within two seconds, and end."""
        close_senders(self._channel)  # threads of this process are workers too
        reader = self._reader
        if reader is None:
            return
        end = time.monotonic() + _LAST_READS
        for _ in range(2):  # the first quiet read may have begun before now
            self._was_quiet.clear()
            while reader.is_up and time.monotonic() < end and not self._was_quiet.wait(0.05):
                pass
        reader.close()

    def _on_events(self, events: list[Event]) -> None:
        self._took = True
        for event in events:
            if self._mark not in event.source or self._put is None:
                continue
            try:
                message = messages.message(event.payload())
            except ValueError:
                self._malformed += 1
                if self._malformed == 1:
                    logger.warning("An event of type %s from %s is malformed; further ones are only counted.",
                                   event.type, event.source)  # fmt: skip
                continue
            if message is not None:
                self._put(message)

    def _on_alive(self) -> None:
        if not self._took:
            self._was_quiet.set()
        self._took = False


class _Opener:
    """Opens a fabric for a reader that must miss nothing of this run, and should not read what came before.

    A fabric that lives as long as its run has no past. If another one does not answer at first, workers may be back on
    it sooner than this reader: then everything is read.
    """

    def __init__(self, radio: FabricRadio) -> None:
        self._radio = radio
        self._run_dir = None if radio.fabric or os.environ.get(VARIABLE) else Path(radio.run_dir)
        self._came_late = False

    def __call__(self) -> Fabric:
        is_own = False
        if self._run_dir is not None:
            end = time.monotonic() + _NOT_YET
            while not (known := read_record(self._run_dir).get("url")) and time.monotonic() < end:
                time.sleep(0.02)  # the fabric of a run is opened right after its radios are made
            if not known:
                raise FabricUnavailableError(f"no fabric was opened for {self._run_dir}")
            is_own = (self._run_dir / DATA).is_dir()
        try:
            fabric = self._radio.open()
        except DiasporaParslError:
            self._came_late = True
            raise
        return _From(fabric, "earliest" if is_own or self._came_late else "latest")


class _From:
    """A fabric with a mind of its own about where readers start."""

    def __init__(self, fabric: Fabric, position: Position) -> None:
        self._fabric = fabric
        self._position = position

    @property
    def url(self) -> str:
        return self._fabric.url

    def publish(self, events: Sequence[Event]) -> None:
        self._fabric.publish(events)

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> Subscription:
        del position
        try:
            return self._fabric.subscribe(topics, self._position)
        except FabricUnavailableError:
            self._position = "earliest"
            raise

    def close(self) -> None:
        self._fabric.close()
