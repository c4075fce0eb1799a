"""A bridge: carries events between fabrics, so that sites and a global fabric form a tree."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Self

from diaspora_parsl.backoff import Backoff
from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import LinkDown, LinkStatus, LinkUp, Payload
from diaspora_parsl.fabric.base import Fabric
from diaspora_parsl.fabric.bridge.config import BridgeConfig, FabricPlace
from diaspora_parsl.fabric.bridge.cursor_store import StateFolder
from diaspora_parsl.fabric.bridge.link import Link, LinkStats
from diaspora_parsl.fabric.publisher import Publisher

logger = logging.getLogger(__name__)

#: Seconds that one read or one look for something to write may wait.
_WAIT: Final = 0.2
#: Seconds between two looks at the links, and between two accounts of each.
_LOOK: Final = 0.2
_STATUS: Final = 1.0
_FIRST_RETRY_SECONDS: Final = 0.05
_LAST_RETRY_SECONDS: Final = 2.0
#: Seconds that its own last events may take when it ends.
_FAREWELL: Final = 1.0


class Bridge:
    """Runs the links of a `BridgeConfig` in background threads, two a link, from construction until `close`.

    Delivery is at least once and in order, across outages and restarts: readers that drop doubles by ``source`` and
    ``id``, as `Reader` does, see every event once. While a destination is away, a bounded number of events is held and
    the rest stays in the source. On its home fabric the bridge tells `LinkUp`, `LinkDown` and, once a second,
    `LinkStatus`.

    Args:
        config: what to join.
        opener: opens a fabric; called again after an outage.

    Raises:
        ConfigurationError: another bridge works with the same state, or the state is damaged.
    """

    def __init__(self, config: BridgeConfig, opener: Callable[[FabricPlace], Fabric] = FabricPlace.open) -> None:
        self.config = config
        self._folder = StateFolder(config.state)
        self._ended = threading.Event()
        self._is_closed = False
        #: Why the bridge cannot go on, if so: a mistake in what it was told, that no waiting mends.
        self.error: ConfigurationError | None = None
        try:
            self._links = [
                Link(
                    link,
                    partial(opener, config.fabrics[link.from_site]),
                    partial(opener, config.fabrics[link.to_site]),
                    self._folder.cursor(link.label),
                )
                for link in config.links
            ]
        except ConfigurationError:
            self._folder.close()
            raise
        name = config.name or config.home
        self._publisher = Publisher(
            partial(opener, config.fabrics[config.home]), source=f"/{config.home}/bridge/{name}", originsite=config.home
        )
        self._told: dict[int, bool] = {}
        self._threads = [
            threading.Thread(target=self._repeat, args=(link, half), name=f"diaspora-{link.config.label}", daemon=True)
            for link in self._links
            for half in (link.fill, link.drain)
        ]
        self._threads.append(threading.Thread(target=self._watch, name="diaspora-bridge", daemon=True))
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        """The bridge is running already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def stats(self) -> tuple[LinkStats, ...]:
        """Counters and state of each link, in the order of the configuration."""
        return tuple(link.stats() for link in self._links)

    @property
    def is_idle(self) -> bool:
        """Whether every link is up, has read its source to the end, and has delivered all of it."""
        return all(link.is_idle and link.stats().is_up for link in self._links)

    def close(self, timeout: float = 10.0) -> None:
        """End, within ``timeout`` seconds; what has been read is written, cursors are kept. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        end = time.monotonic() + timeout
        self._ended.set()
        for link in self._links:
            link.wake()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            # The state stays locked until the process ends: what still runs may yet move a cursor.
            logger.warning("The bridge did not end within %.0f s; a fabric holds it up.", timeout)
            return
        for link in self._links:
            self._finish(link, end)
            try:
                link.save()
            except OSError as error:
                logger.warning("The cursor of %s was not kept (%s): some events will be sent twice.",
                               link.config.label, error)  # fmt: skip
            link.close()
        self._publisher.close(min(_FAREWELL, max(0.1, end - time.monotonic())))
        self._folder.close()

    @staticmethod
    def _finish(link: Link, end: float) -> None:
        """Write what the link has read ahead, while its destination takes it; the source keeps the rest."""
        while link.stats().waiting and link.destination.answers is not False and time.monotonic() < end:
            try:
                link.drain(0)
            except Exception as error:  # noqa: BLE001 - whatever a transport does, the next bridge sends it
                logger.warning("%s ended before everything that was read had been sent: %s", link.config.label, error)
                return

    # --- threads --------------------------------------------------------------------------------------------------

    def _repeat(self, link: Link, half: Callable[[float], int]) -> None:
        """One half of a link, until the end."""
        backoff = Backoff(_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
        while not self._ended.is_set():
            try:
                half(_WAIT)
            except ConfigurationError as error:
                self.error = self.error or error
                logger.error("The link %s cannot work: %s", link.config.label, error)  # noqa: TRY400 - a sentence
                return
            except Exception as error:
                if self._ended.is_set():
                    return
                if not isinstance(error, FabricUnavailableError) and not backoff.failures:
                    logger.exception("The link %s failed in an unexpected way; trying again.", link.config.label)
                self._ended.wait(backoff.next() * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            else:
                backoff.reset()

    def _watch(self) -> None:
        """Tell what becomes of the links."""
        due = 0.0
        resyncs = [0] * len(self._links)
        while not self._ended.wait(_LOOK):
            for number, link in enumerate(self._links):
                stats = link.stats()
                self._tell_change(number, link, stats)
                if stats.resyncs > resyncs[number]:
                    resyncs[number] = stats.resyncs
                    logger.warning("%s: events were trimmed away before they were read (%d times so far).",
                                   link.config.label, stats.resyncs)  # fmt: skip
            if time.monotonic() >= due:
                due = time.monotonic() + _STATUS
                for link in self._links:
                    self._tell_status(link)

    def _tell_change(self, number: int, link: Link, stats: LinkStats) -> None:
        known = self._told.get(number)
        if known is None and not stats.is_up and not stats.reason:
            return  # not asked yet
        if stats.is_up is known:
            return
        self._told[number] = stats.is_up
        who = {"bridge": self.config.name or self.config.home, "from_site": stats.from_site, "to_site": stats.to_site}
        if stats.is_up:
            logger.info("The link %s is up.", link.config.label)
            self._emit(link, LinkUp(**who))
        else:
            logger.warning("The link %s is down, events wait: %s", link.config.label, stats.reason)
            self._emit(link, LinkDown(**who, reason=stats.reason))

    def _tell_status(self, link: Link) -> None:
        stats = link.stats()
        payload = LinkStatus(
            bridge=self.config.name or self.config.home,
            from_site=stats.from_site,
            to_site=stats.to_site,
            reads=stats.reads,
            writes=stats.writes,
            forwarded=stats.forwarded,
            waiting=stats.waiting,
            refused=stats.refused,
            thinned=stats.thinned,
            looped=stats.looped,
            doubles=stats.doubles,
            resyncs=stats.resyncs,
            interval=_STATUS,
        )
        self._emit(link, payload)

    def _emit(self, link: Link, payload: Payload) -> None:
        self._publisher.emit(payload, link.config.label)
