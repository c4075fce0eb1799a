"""What a log of events says about the pools on a fabric: a fold without thread or wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from diaspora_parsl import events as ev

from .pool_state import PoolView


@dataclass(slots=True)
class NodeView:
    """One node of one block, as its agent reports."""

    endpoint: str
    block: str
    node: str
    interval: float = 1.0
    received: float = float("-inf")
    """When the last heartbeat was sent, on the clock of the caller of `FabricState.apply`."""
    stopped: bool = False
    """The agent said goodbye: its silence means nothing."""
    source: str = ""
    sequence: int = -1


class FabricState:
    """The state of a fabric, folded from its events."""

    def __init__(self) -> None:
        self.sources: dict[str, PoolView] = {}
        self.nodes: dict[tuple[str, str, str], NodeView] = {}
        self.events = 0
        self.unknown = 0
        self.malformed = 0
        self.dropped_changes = 0
        self.dropped_samples = 0

    def apply(self, event: ev.Event, received: float = 0.0) -> None:
        """Take one event in; never raises, whatever the event holds.

        Args:
            event: the next event, from any source.
            received: Time of sending, in seconds of the caller's clock.
        """
        self.events += 1
        try:
            payload = event.payload()
        except (ValueError, RecursionError):
            self.malformed += 1
            return
        match payload:
            case None:
                self.unknown += 1
            case ev.NodeHeartbeat() | ev.NodeStopped():
                self._node_event(event, payload, received)
            case ev.FabricDropped():
                self.dropped_changes += payload.state_changes
                self.dropped_samples += payload.samples
            case _:
                source = self.sources.get(event.source)
                if source is None:
                    source = self.sources[event.source] = PoolView(event.source)
                source.apply(event, payload)

    def pools(self) -> list[PoolView]:
        """The pools, the one to look at first: running before ended, then the newest first."""
        pools = [view for view in self.sources.values() if view.is_pool]
        return sorted(pools, key=lambda view: (not view.stopped, view.started or view.last_time), reverse=True)

    def others(self) -> list[PoolView]:
        """Sources that are no pool but said something about endpoints."""
        return [view for view in self.sources.values() if not view.is_pool and view.endpoints]

    def nodes_of(self, endpoint: str) -> list[NodeView]:
        """The nodes of an endpoint whose agents did not say goodbye."""
        return [node for node in self.nodes.values() if node.endpoint == endpoint and not node.stopped]

    def _node_event(self, event: ev.Event, payload: ev.NodeHeartbeat | ev.NodeStopped, received: float) -> None:
        key = (payload.endpoint, payload.block, payload.node)
        node = self.nodes.get(key)
        if node is None:
            node = self.nodes[key] = NodeView(*key)
        if event.source == node.source and event.sequence <= node.sequence:
            return
        node.source, node.sequence = event.source, event.sequence
        node.stopped = isinstance(payload, ev.NodeStopped)
        if isinstance(payload, ev.NodeHeartbeat):
            node.interval, node.received = payload.interval, max(node.received, received)


def age(event: ev.Event) -> float:
    """Seconds since an event of the past was sent, by the wall clock; it says nothing better about itself."""
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(event.time)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0
