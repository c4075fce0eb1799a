"""Node outlier detection: eject a node inside an endpoint that fails what its peers run, and for how long."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from diaspora_parsl.backoff import Backoff

#: Failures after which a node gets a function no more: if it never succeeded there, and otherwise in a row.
_NEW: Final = 1
_TRIED: Final = 3
#: Different tasks in a row that failed on a node and succeeded on another, after which the node is ejected. Envoy
#: ejects after 5 consecutive errors, but does not know that the host caused them.
IN_A_ROW: Final = 3
#: Seconds of the first ejection of a node, for one function and for all; each further failure doubles them.
FUNCTION_PAUSE: Final = 10.0
NODE_PAUSE: Final = 30.0
LONGEST_PAUSE: Final = 300.0
#: Seconds between two probes; short, because only some attempts of an endpoint reach the node.
_PROBE_PERIOD: Final = 2.0
#: Attempts from which success rates are compared, and above which the counts are halved.
_VOLUME: Final = 10
_WINDOW: Final = 200
#: Standard deviations of its peers' success rates (Envoy's ``success_rate_stdev_factor`` of 1900, in thousandths), and
#: the least difference, by which the rate of an outlier is below their mean. Envoy includes the host itself, but of
#: four hosts none could ever be 1.9 deviations off.
_DEVIATIONS: Final = 1.9
_LEAST: Final = 0.25
#: Evidence of one failure: a second opinion is pending, was not requested, or blamed the node.
_AWAITED: Final = 0
_ALONE: Final = 1
_PROVEN: Final = 2
#: Number of consecutive failures kept per node and function.
_MAX_FAILURES: Final = 16
#: Number of functions kept per node.
_FUNCTIONS: Final = 1000


class Change(Struct, frozen=True):
    """The ejection or return of a node."""

    node: Node
    ejected: bool
    reason: str
    function: str = ""
    """Function concerned; empty for all."""


class _Streak:
    """Outcomes of one function on one node."""

    __slots__ = ("backoff", "failures", "until", "worked")

    def __init__(self) -> None:
        self.worked = False
        #: Evidence of each task that failed since the last success.
        self.failures: dict[int, int] = {}
        #: Time until which the node does not get the function; then a probe decides.
        self.until: float | None = None
        self.backoff = Backoff(FUNCTION_PAUSE, LONGEST_PAUSE)

    @property
    def is_awaited(self) -> bool:
        """Whether a second opinion is pending, and the node gets no more of the function meanwhile."""
        return _AWAITED in self.failures.values() and len(self.failures) >= (_TRIED if self.worked else _NEW)


class Node:
    """Evidence about one node of an endpoint, over all its successive managers."""

    __slots__ = ("backoff", "bad", "block", "disconnected_at", "ejected_until", "endpoint", "failures", "functions",
                 "good", "host", "inherited", "manager")  # fmt: skip

    def __init__(self, endpoint: str, host: str, block: str, manager: str) -> None:
        self.endpoint = endpoint
        self.host = host
        self.block = block
        self.manager = manager
        #: Time at which its manager disconnected.
        self.disconnected_at: float | None = None
        self.functions: dict[str, _Streak] = {}
        #: Functions and tasks that failed here and succeeded elsewhere, since the last success here.
        self.failures: set[tuple[str, int]] = set()
        self.good = self.bad = 0.0
        self.ejected_until: float | None = None
        self.backoff = Backoff(NODE_PAUSE, LONGEST_PAUSE)
        #: Whether it reconnected with another manager while ejected.
        self.inherited = False

    def __str__(self) -> str:
        return f"{self.host} (block {self.block}, manager {self.manager})"

    @property
    def rate(self) -> float | None:
        """Success rate; failures count only if another place succeeded. None below `_VOLUME` attempts."""
        volume = self.good + self.bad
        return self.good / volume if volume >= _VOLUME else None

    @property
    def is_suspect(self) -> bool:
        """Whether any evidence against it is open."""
        return self.ejected_until is not None or any(s.failures or s.until is not None for s in self.functions.values())

    def record_outcome(self, *, good: bool) -> None:
        """Count an outcome for the success rate."""
        if good:
            self.good += 1
        else:
            self.bad += 1
        if self.good + self.bad > _WINDOW:
            self.good /= 2
            self.bad /= 2


class _EndpointNodes:
    """The nodes of one endpoint."""

    __slots__ = ("blocks", "known", "managers", "more", "nodes", "suspects")

    def __init__(self) -> None:
        #: Nodes by "host block manager", as the node gate reports them.
        self.nodes: dict[str, Node] = {}
        #: Nodes with evidence against them.
        self.suspects: dict[str, Node] = {}
        self.managers: frozenset[str] = frozenset()
        self.blocks: dict[str, int] = {}
        self.more = False
        self.known = 0


class NodeOutlierDetector:
    """Collects evidence about nodes and decides which attempts must avoid them.

    A failure is evidence against a node while a second opinion on it is pending, once the same task has succeeded
    elsewhere, or if different tasks fail there whose function succeeds elsewhere. A task that fails everywhere is no
    evidence, and one task counts once. At most half of the nodes of an endpoint are ejected (Envoy: panic threshold).

    Args:
        endpoints: Labels of the endpoints.
    """

    def __init__(self, endpoints: Iterable[str]) -> None:
        self._evidence = {label: _EndpointNodes() for label in endpoints}

    # --- evidence -------------------------------------------------------------------------------------------------

    def connected(self, endpoint: str, managers: Iterable[tuple[str, str]], at: float, *, more: bool) -> None:
        """Record the connected managers (id, block), and whether more are expected."""
        evidence = self._evidence[endpoint]
        pairs = list(managers)
        evidence.managers = frozenset(manager for manager, _ in pairs)
        evidence.more = more
        evidence.blocks = {}
        for _, block in pairs:
            evidence.blocks[block] = evidence.blocks.get(block, 0) + 1
        for key, node in list(evidence.nodes.items()):
            if node.manager in evidence.managers:
                node.disconnected_at = None
                continue
            if node.disconnected_at is None:
                node.disconnected_at = at
            if key not in evidence.suspects or at - node.disconnected_at > LONGEST_PAUSE:
                self._forget(evidence, key)

    def node(self, endpoint: str, name: str) -> Node:
        """Return the node that a node gate reported as "host block manager"."""
        evidence = self._evidence[endpoint]
        node = evidence.nodes.get(name)
        return node if node is not None else self._add_node(evidence, endpoint, name)

    def find(self, endpoint: str, name: str) -> Node | None:
        """Return the known node of this name; a node that reconnected has another name."""
        return self._evidence[endpoint].nodes.get(name)

    def _add_node(self, evidence: _EndpointNodes, endpoint: str, name: str) -> Node:
        host, block, manager = name.split(" ", 2)
        for key, old in list(evidence.suspects.items()):
            if old.host == host and old.disconnected_at is not None:
                if self._has_neighbour(evidence, old):
                    self._forget(evidence, key)  # the manager was bad, not the host
                    continue
                del evidence.suspects[key], evidence.nodes[key]
                old.block, old.manager, old.disconnected_at, old.inherited = block, manager, None, True
                evidence.nodes[name] = evidence.suspects[name] = old
                return old
        node = evidence.nodes[name] = Node(endpoint, host, block, manager)
        return node

    def node_succeeded(self, endpoint: str, name: str, function: str) -> list[Change]:
        """Record a success on a node; return the changes that follow."""
        evidence = self._evidence[endpoint]
        node = self.node(endpoint, name)
        node.record_outcome(good=True)
        streak = self._streak(node, function)
        streak.worked = True
        if name not in evidence.suspects:
            return []
        changes = []
        if node.ejected_until is not None:
            node.ejected_until = None
            node.backoff.reset()
            changes.append(Change(node, ejected=False, reason=f"{function} succeeded there"))
        if streak.until is not None:
            changes.append(Change(node, ejected=False, reason="it succeeded there", function=function))
        node.failures.clear()
        streak.failures.clear()
        streak.until = None
        streak.backoff.reset()
        self._tidy(evidence, name, node)
        return changes

    def failed(
        self, endpoint: str, name: str, function: str, task: int, attempt: int, at: float, *, awaited: bool
    ) -> list[Change]:
        """Record an exception of the user's code on a node; ``awaited``: a second opinion is pending.

        A probe that fails doubles the time of the ejection.
        """
        self.record_failed_attempt(endpoint, attempt)
        evidence = self._evidence[endpoint]
        node = self.node(endpoint, name)
        streak = self._streak(node, function)
        if len(streak.failures) < _MAX_FAILURES:
            streak.failures[task] = _AWAITED if awaited else _ALONE
        evidence.suspects[name] = node
        if streak.until is not None:
            if at >= streak.until - _PROBE_PERIOD:
                streak.backoff.next()
            streak.until = at + streak.backoff.delay
        if node.ejected_until is not None:
            if at >= node.ejected_until - _PROBE_PERIOD:
                node.backoff.next()
            node.ejected_until = at + node.backoff.delay
        if (
            streak.until is None
            and not streak.worked
            and len(streak.failures) >= IN_A_ROW
            and self._works_elsewhere(evidence, node, function)
            and self._may_eject(evidence, node, function)
        ):
            why = f"{len(streak.failures)} tasks failed there, and others succeed elsewhere"
            return [self._eject_function(node, streak, function, at, why)]
        return []

    def proven(self, endpoint: str, name: str, function: str, task: int, at: float) -> list[Change]:
        """Record that a task which had failed on the node succeeded at another place."""
        evidence = self._evidence[endpoint]
        node = evidence.nodes.get(name)
        streak = node.functions.get(function) if node is not None else None
        if node is None or streak is None or task not in streak.failures:
            return []  # the node has succeeded since; the success rate covers intermittent failures
        streak.failures[task] = _PROVEN
        node.failures.add((function, task))
        node.record_outcome(good=False)
        changes = []
        if (
            streak.until is None
            and list(streak.failures.values()).count(_PROVEN) >= (_TRIED if streak.worked else _NEW)
            and self._may_eject(evidence, node, function)
        ):
            why = f"task {task} failed there and succeeded elsewhere"
            changes.append(self._eject_function(node, streak, function, at, why))
        reason = self._ejection_reason(evidence, node)
        if reason and node.ejected_until is None and self._may_eject(evidence, node, ""):
            node.ejected_until = at + node.backoff.delay
            changes.append(Change(node, ejected=True, reason=reason))
        return changes

    def closed(self, endpoint: str, name: str, function: str, task: int) -> None:
        """Drop the evidence of a settled task unless another place succeeded with it."""
        evidence = self._evidence[endpoint]
        node = evidence.nodes.get(name)
        streak = node.functions.get(function) if node is not None else None
        if node is not None and streak is not None and streak.failures.get(task) == _AWAITED:
            del streak.failures[task]
            self._tidy(evidence, name, node)

    # --- what attempts must avoid ---------------------------------------------------------------------------------

    def record_failed_attempt(self, endpoint: str, attempt: int) -> None:
        """Record a failed attempt, so that workers no longer hold other attempts back for it."""
        evidence = self._evidence[endpoint]
        evidence.known = max(evidence.known, attempt)

    def known(self, endpoint: str) -> int:
        """Return the last failed attempt that the evidence includes; 0 without any."""
        return self._evidence[endpoint].known

    def avoid(self, endpoint: str, function: str, at: float) -> tuple[str, ...]:
        """Return the hosts and managers on which an attempt of the function must not run now.

        After the time of an ejection, one attempt per `_PROBE_PERIOD` seconds may run there as a probe.
        """
        evidence = self._evidence[endpoint]
        names: list[str] = []
        awaited = []
        count = 0
        for node in evidence.suspects.values():
            streak = node.functions.get(function)
            if node.ejected_until is not None or (streak is not None and streak.until is not None):
                count += node.disconnected_at is None
                if self._must_avoid(node, streak, at):
                    names += self.names_of(node)
            elif streak is not None and streak.is_awaited:
                awaited.append(node)
        for node in awaited:
            count += 1
            if 2 * count > len(evidence.managers) + evidence.more:
                break
            names += self.names_of(node)
        return tuple(names)

    def names_of(self, node: Node) -> tuple[str, ...]:
        """Return the names that exclude a node: its manager, and its host unless another manager shares it."""
        own = not self._has_neighbour(self._evidence[node.endpoint], node)
        return (node.manager, node.host) if own else (node.manager,)

    def has_other(self, endpoint: str, avoid: Iterable[str], *, expected: bool = True) -> bool:
        """Whether the endpoint has, or expects, managers other than those of these nodes."""
        evidence = self._evidence[endpoint]
        named = set(avoid)
        managers = {node.manager for node in evidence.nodes.values() if not named.isdisjoint((node.host, node.manager))}
        return (expected and evidence.more) or bool(evidence.managers - managers - named)

    def works(self, endpoint: str, function: str) -> bool:
        """Whether the function has succeeded on any node of the endpoint."""
        found = (node.functions.get(function) for node in self._evidence[endpoint].nodes.values())
        return any(streak is not None and streak.worked for streak in found)

    def _must_avoid(self, node: Node, streak: _Streak | None, at: float) -> bool:
        """Whether an attempt must avoid the node; False makes it the probe."""
        if node.ejected_until is not None:
            if at < node.ejected_until:
                return True
            node.ejected_until = at + _PROBE_PERIOD
        if streak is not None and streak.until is not None:
            if at < streak.until:
                return True
            streak.until = at + _PROBE_PERIOD
        return False

    def _eject_function(self, node: Node, streak: _Streak, function: str, at: float, why: str) -> Change:
        streak.until = at + streak.backoff.delay
        return Change(node, ejected=True, reason=why, function=function)

    def _ejection_reason(self, evidence: _EndpointNodes, node: Node) -> str:
        if len(node.failures) >= IN_A_ROW:
            return f"{len(node.failures)} tasks in a row failed there and succeeded elsewhere"
        mine = node.rate
        peers = [rate for other in evidence.nodes.values() if other is not node and (rate := other.rate) is not None]
        if mine is None or len(peers) < 2:  # noqa: PLR2004 - a deviation needs two
            return ""
        mean = statistics.fmean(peers)
        if mine >= mean - max(_LEAST, _DEVIATIONS * statistics.pstdev(peers, mean)):
            return ""
        return f"{mine:.0%} of what it ran succeeded, and {mean:.0%} on its {len(peers)} peers"

    def _works_elsewhere(self, evidence: _EndpointNodes, node: Node, function: str) -> bool:
        return any(
            other is not node and (streak := other.functions.get(function)) is not None and streak.worked
            for other in evidence.nodes.values()
        )

    def _may_eject(self, evidence: _EndpointNodes, node: Node, function: str) -> bool:
        """Whether half of the nodes would stay in."""
        out = 1
        for other in evidence.suspects.values():
            if other is not node and other.disconnected_at is None:
                streak = other.functions.get(function)
                out += other.ejected_until is not None or (streak is not None and streak.until is not None)
        return 2 * out <= len(evidence.managers) + evidence.more

    def _has_neighbour(self, evidence: _EndpointNodes, node: Node) -> bool:
        """Whether another connected manager on the same host is not ejected."""
        return any(
            other is not node
            and other.host == node.host
            and other.disconnected_at is None
            and other.ejected_until is None
            for other in evidence.nodes.values()
        )

    def _streak(self, node: Node, function: str) -> _Streak:
        streak = node.functions.get(function)
        if streak is None:
            if len(node.functions) >= _FUNCTIONS:
                node.functions.pop(next(iter(node.functions)))
            streak = node.functions[function] = _Streak()
        return streak

    def _tidy(self, evidence: _EndpointNodes, name: str, node: Node) -> None:
        if not node.is_suspect:
            evidence.suspects.pop(name, None)
            node.inherited = False

    def _forget(self, evidence: _EndpointNodes, key: str) -> None:
        evidence.suspects.pop(key, None)
        evidence.nodes.pop(key, None)

    # --- queries --------------------------------------------------------------------------------------------------

    def ejected(self, endpoint: str) -> list[Node]:
        """Return the nodes that are ejected for all functions."""
        return [node for node in self._evidence[endpoint].suspects.values() if node.ejected_until is not None]

    def nodes(self, endpoint: str) -> list[Node]:
        """Return all known nodes."""
        return list(self._evidence[endpoint].nodes.values())
