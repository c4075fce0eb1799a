"""The agent: publishes the heartbeats of one node, once a second."""

from __future__ import annotations

import os
import random
import sys
import time
import uuid
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from diaspora_parsl.backoff import backoff_delay
from diaspora_parsl.errors import ConfigurationError, DiasporaParslError
from diaspora_parsl.events import Event, NodeHeartbeat, NodeSampled, NodeStopped, Payload, WorkerDied, encode_payload
from diaspora_parsl.events.signing import hmac_of

from .node_metrics import Node
from .parent_watch import ParentWatch
from .worker_watch import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from diaspora_parsl.fabric.base import Fabric

__all__ = ["MAX_BACKOFF", "Agent", "AgentConfig"]

#: Longest pause between two attempts to reach a fabric, in seconds. Short: while an agent pauses, its node looks dead.
MAX_BACKOFF: Final = 5.0
#: Seconds between two looks at workers.
_LOOK: Final = 0.5
#: Worker deaths that are kept while the fabric is unreachable.
_MOST_DEATHS: Final = 1000
#: Ties a process to its block; see `diaspora_parsl.executors.parsl.adapter.BLOCK_VARIABLE`.
_BLOCK_VARIABLE: Final = "DIASPORA_PARSL_BLOCK"


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """What an agent says of itself.

    Attributes:
        endpoint: the endpoint it speaks for, by the label that the pool uses.
        site: the facility the endpoint belongs to.
        block: the block, as Parsl counts them; empty if there are none.
        node: the host.
        interval: seconds between two heartbeats.
    """

    endpoint: str
    site: str = ""
    block: str = ""
    node: str = ""
    interval: float = 1.0

    def __post_init__(self) -> None:
        """Check what was given."""
        if not self.endpoint.strip():
            raise ConfigurationError("An agent speaks for one endpoint. Write --endpoint LABEL, as the pool calls it.")
        if not 0.05 <= self.interval <= 3600:  # noqa: PLR2004  (said in the sentence)
            raise ConfigurationError(f"--interval {self.interval:g} is not between 0.05 and 3600 seconds.")


class Agent:
    """Publishes heartbeats until it is stopped or its block has ended.

    A heartbeat that cannot be sent is lost, never kept: an old sign of life is none. The death of a worker is told as
    soon as it is seen, or once the fabric is back.

    Args:
        config: what to say.
        opener: opens the fabric; called again after every failure, so that an address may change.
        guard: Says when to end.
        clock: seconds that only go forward; wall-clock time appears in events but decides nothing.
        node: what is looked at beside each heartbeat; None for nothing.
    """

    def __init__(
        self,
        config: AgentConfig,
        opener: Callable[[], Fabric],
        parent_watch: ParentWatch,
        clock: Callable[[], float] = time.monotonic,
        node: Node | None = None,
    ) -> None:
        self.config = config
        self._opener = opener
        self._guard = parent_watch
        self._clock = clock
        self._node = node
        self._workers = Workers()
        self._deaths: deque[WorkerDied] = deque(maxlen=_MOST_DEATHS)
        self._secret = os.environ.get(_BLOCK_VARIABLE, "")
        # A process id alone may come again, and its sequence would start again.
        token = uuid.uuid4().hex[:8]
        self._source = f"/{config.site}/{config.endpoint}/{config.block}/{config.node}/{os.getpid()}-{token}"
        self._sequence = 0
        self._fabric: Fabric | None = None
        self._failures = 0
        self._retry_at = float("-inf")

    def run(self, wait: Callable[[float], str]) -> str:
        """Beat until the end; returns why it ended.

        Args:
            wait: sleeps for that many seconds or less; returns why the agent should stop, or an empty string.
        """
        due = self._clock()
        reason = ""
        while not reason and not (reason := self._guard.gone()):
            self._look_at_workers()
            is_due = self._clock() >= due
            if (is_due or self._deaths) and self._clock() >= self._retry_at:
                self._emit(beats=is_due)
            now = self._clock()
            if is_due:
                # After a stall the next beat is due a whole interval from now: what was missed is not caught up.
                due = due + self.config.interval if due + self.config.interval > now else now + self.config.interval
            reason = wait(min(due - now, _LOOK) if self._guard.managers else due - now)
        if self._fabric:
            self._goodbye(self._fabric, reason)
        self._workers.close()
        return reason

    def _look_at_workers(self) -> None:
        me = self.config
        for pid, attempt in self._workers.deaths(self._guard.managers):
            proof = hmac_of(self._secret, me.endpoint, pid, attempt) if self._secret else ""
            self._deaths.append(
                WorkerDied(
                    endpoint=me.endpoint, site=me.site, block=me.block, node=me.node, pid=pid, attempt=attempt,
                    proof=proof,
                )
            )  # fmt: skip

    def _emit(self, *, beats: bool) -> None:
        me = self.config
        payloads: list[Payload] = list(self._deaths)
        if beats:
            payloads.append(
                NodeHeartbeat(endpoint=me.endpoint, site=me.site, block=me.block, node=me.node, interval=me.interval)
            )
            if self._node is not None:
                payloads.append(
                    NodeSampled(
                        endpoint=me.endpoint, site=me.site, block=me.block, node=me.node, workers=len(self._workers),
                        **self._node.sample()._asdict(),
                    )
                )  # fmt: skip
        try:
            if self._fabric is None:
                self._fabric = self._opener()
            self._fabric.publish([self._event(payload) for payload in payloads])
        except (DiasporaParslError, OSError) as error:
            self._failed(error)
        else:
            self._deaths.clear()
            if self._failures:
                _say("connected")
            self._failures, self._retry_at = 0, float("-inf")

    def _failed(self, error: Exception) -> None:
        if not self._failures:
            _say(f"no fabric, trying again quietly: {error}")
        self._failures += 1
        # Spread, or the nodes of a large block all come back in the same instant.
        pause = backoff_delay(self.config.interval, MAX_BACKOFF, self._failures - 1)
        self._retry_at = self._clock() + pause * random.uniform(0.8, 1.0)  # noqa: S311  (no secret)
        if self._fabric:
            self._fabric.close()
            self._fabric = None

    def _goodbye(self, fabric: Fabric, reason: str) -> None:
        me = self.config
        payload = NodeStopped(endpoint=me.endpoint, site=me.site, block=me.block, node=me.node, reason=reason)
        try:
            fabric.publish([self._event(payload)])
        except (DiasporaParslError, OSError) as error:
            _say(f"no goodbye: {error}")
        fabric.close()

    def _event(self, payload: Payload) -> Event:
        self._sequence += 1
        return Event(
            id=str(self._sequence),
            source=self._source,
            type=payload.event_type(),
            subject=self.config.endpoint,
            time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            partitionkey=self.config.endpoint,
            sequence=self._sequence,
            data=encode_payload(payload),
            originsite=self.config.site or UNSET,
        )


def _say(sentence: str) -> None:
    """Write one line to standard error, which may be closed."""
    try:
        print(f"diaspora-parsl agent: {sentence}", file=sys.stderr, flush=True)  # noqa: T201  (a program's voice)
    except OSError:
        return
