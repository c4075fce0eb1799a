"""A bridge forwards events between the fabrics of sites and a global fabric."""

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

#: Seconds that one read, or one wait for events to write, may take.
_WAIT_SECONDS: Final = 0.2
#: Seconds between two polls of the links, and between two `LinkStatus` events of each.
_POLL_SECONDS: Final = 0.2
_STATUS_SECONDS: Final = 1.0
_FIRST_RETRY_SECONDS: Final = 0.05
_LAST_RETRY_SECONDS: Final = 2.0
#: Seconds to publish the last events of the bridge when it ends.
_CLOSE_SECONDS: Final = 1.0


class Bridge:
    """Runs the links of a `BridgeConfig` in two background threads per link, from construction until `close`.

    Delivery is at-least-once and in order, across outages and restarts. Readers that drop duplicates by ``source`` and
    ``id``, as `Consumer` does, receive every event once. During an outage of a destination the link holds a bounded
    number of events, and the rest stays in the source. The bridge publishes `LinkUp`, `LinkDown` and, once a second,
    `LinkStatus` to its home fabric.

    Args:
        config: Fabrics and links.
        opener: Opens a fabric; called again after an outage.

    Raises:
        ConfigurationError: Another bridge uses the same state folder, or the state is damaged.
    """

    def __init__(self, config: BridgeConfig, opener: Callable[[FabricPlace], Fabric] = FabricPlace.open) -> None:
        self.config = config
        self._folder = StateFolder(config.state)
        self._ended = threading.Event()
        self._is_closed = False
        #: Configuration error that ended a link and that no retry resolves; None otherwise.
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
        self._published_states: dict[int, bool] = {}
        self._threads = [
            threading.Thread(target=self._repeat, args=(link, half), name=f"diaspora-{link.config.label}", daemon=True)
            for link in self._links
            for half in (link.fill, link.drain)
        ]
        self._threads.append(threading.Thread(target=self._watch, name="diaspora-bridge", daemon=True))
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        """Return the bridge, which is already running."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close the bridge."""
        self.close()

    def stats(self) -> tuple[LinkStats, ...]:
        """Return counters and state of each link, in the order of the configuration."""
        return tuple(link.stats() for link in self._links)

    @property
    def is_idle(self) -> bool:
        """Whether every link is up, has read its source to the end and has delivered every event."""
        return all(link.is_idle and link.stats().is_up for link in self._links)

    def close(self, timeout: float = 10.0) -> None:
        """End within ``timeout`` seconds; write the events already read and save the cursors. Idempotent."""
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
            # The state stays locked until the process ends, because a running thread may still move a cursor.
            logger.warning("The bridge did not end within %.0f s; a fabric delays it.", timeout)
            return
        for link in self._links:
            self._finish(link, end)
            try:
                link.save()
            except OSError as error:
                logger.warning("The cursor of %s was not saved (%s): some events will be sent twice.",
                               link.config.label, error)  # fmt: skip
            link.close()
        self._publisher.close(min(_CLOSE_SECONDS, max(0.1, end - time.monotonic())))
        self._folder.close()

    @staticmethod
    def _finish(link: Link, end: float) -> None:
        """Write the events that the link has read ahead; the source keeps the rest."""
        while link.stats().waiting and link.destination.answers is not False and time.monotonic() < end:
            try:
                link.drain(0)
            except Exception as error:  # noqa: BLE001 - the next bridge sends the rest
                logger.warning("%s ended before everything that was read had been sent: %s", link.config.label, error)
                return

    # --- threads --------------------------------------------------------------------------------------------------

    def _repeat(self, link: Link, half: Callable[[float], int]) -> None:
        """Run one half of a link until the bridge ends."""
        backoff = Backoff(_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
        while not self._ended.is_set():
            try:
                half(_WAIT_SECONDS)
            except ConfigurationError as error:
                self.error = self.error or error
                logger.error("The link %s cannot work: %s", link.config.label, error)  # noqa: TRY400 - a sentence
                return
            except Exception as error:
                if self._ended.is_set():
                    return
                if not isinstance(error, FabricUnavailableError) and not backoff.failures:
                    logger.exception("The link %s failed unexpectedly; it is retried.", link.config.label)
                self._ended.wait(backoff.next() * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            else:
                backoff.reset()

    def _watch(self) -> None:
        """Publish state changes and status of the links."""
        due = 0.0
        resyncs = [0] * len(self._links)
        while not self._ended.wait(_POLL_SECONDS):
            for number, link in enumerate(self._links):
                stats = link.stats()
                self._publish_change(number, link, stats)
                if stats.resyncs > resyncs[number]:
                    resyncs[number] = stats.resyncs
                    logger.warning("%s: events were trimmed before they were read (%d times so far).",
                                   link.config.label, stats.resyncs)  # fmt: skip
            if time.monotonic() >= due:
                due = time.monotonic() + _STATUS_SECONDS
                for link in self._links:
                    self._publish_status(link)

    def _publish_change(self, number: int, link: Link, stats: LinkStats) -> None:
        known = self._published_states.get(number)
        if known is None and not stats.is_up and not stats.reason:
            return  # no answer yet
        if stats.is_up is known:
            return
        self._published_states[number] = stats.is_up
        who = {"bridge": self.config.name or self.config.home, "from_site": stats.from_site, "to_site": stats.to_site}
        if stats.is_up:
            logger.info("The link %s is up.", link.config.label)
            self._emit(link, LinkUp(**who))
        else:
            logger.warning("The link %s is down, events wait: %s", link.config.label, stats.reason)
            self._emit(link, LinkDown(**who, reason=stats.reason))

    def _publish_status(self, link: Link) -> None:
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
            interval=_STATUS_SECONDS,
        )
        self._emit(link, payload)

    def _emit(self, link: Link, payload: Payload) -> None:
        self._publisher.emit(payload, link.config.label)
