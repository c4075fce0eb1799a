"""A small shell in virtual time whose endpoints have named nodes, some of them bad: the simulator names none."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import Any, Final

from diaspora_parsl.core import actions, settings, stimuli
from diaspora_parsl.core.failures import Failure, FailureAction, Kind
from diaspora_parsl.core.machine import PoolCore

LABELS: Final = ("alpha", "beta")
NODES: Final = 4
SLOTS: Final = 2
#: Seconds between two tasks, and of one task.
BETWEEN: Final = 0.2
SECONDS: Final = 0.8


class BadNodes:
    """Runs tasks on two endpoints; at each of them one node fails every task for a while, or one function.

    Args:
        seed: of everything that is drawn.
        tasks: how many.
    """

    def __init__(self, seed: int, tasks: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self.core = PoolCore(
            [settings.EndpointSpec(label=label, site=label) for label in LABELS], settings.PoolSettings()
        )
        self.now = 0.0
        self.wake = float("inf")
        self.count = 0
        self.events: list[tuple[float, int, stimuli.Stimulus]] = []
        #: Host, block and manager of each node.
        self.nodes = {label: [f"h{i} {i} m-{label}-{i}" for i in range(NODES)] for label in LABELS}
        self.replaced = 0
        self.bad = {label: self.rng.choice(nodes) for label, nodes in self.nodes.items()}
        self.bad_until = {label: self.rng.uniform(5.0, 60.0) for label in LABELS}
        self.bad_function = self.rng.choice((None, "f1"))
        self.functions = {number: f"f{number % 4}" for number in range(1, tasks + 1)}

    def run(self) -> None:
        """Run until all tasks are settled, or nothing happens any more."""
        for label in LABELS:
            self.plan(0.0, stimuli.Started(0.0, label, 0))
            self.tell_nodes(label)
        for number, function in self.functions.items():
            at = number * BETWEEN
            self.plan(at, stimuli.Submitted(at, number, function, frozenset(LABELS), idempotent=True))
        while self.events and (self.core.tasks or self.now < len(self.functions) * BETWEEN):
            self.now, _, stimulus = heappop(self.events)
            if isinstance(stimulus, stimuli.Tick):
                if self.now != self.wake:
                    continue
                self.wake = float("inf")
            for action in self.core.handle(stimulus):
                self.do(action)

    def plan(self, at: float, stimulus: stimuli.Stimulus) -> None:
        self.count += 1
        heappush(self.events, (at, self.count, stimulus))

    def tell_nodes(self, label: str) -> None:
        managers = tuple((node.split()[2], node.split()[1]) for node in self.nodes[label])
        self.plan(self.now, stimuli.Nodes(self.now, label, 0, managers))
        self.plan(self.now, stimuli.Observed(self.now, label, 0, SLOTS * NODES, blocks_expected=True))

    def do(self, action: actions.Action) -> None:
        if isinstance(action, actions.Dispatch):
            self.take(action)
        elif isinstance(action, actions.Evict):
            self.replaced += 1
            self.nodes[action.endpoint] = [
                f"h{NODES + self.replaced} {NODES + self.replaced} m-{action.endpoint}-{NODES + self.replaced}"
                if node.split()[2] == action.manager
                else node
                for node in self.nodes[action.endpoint]
            ]
            self.tell_nodes(action.endpoint)
        elif isinstance(action, actions.WakeAt) and action.at < self.wake:
            self.wake = action.at
            self.plan(action.at, stimuli.Tick(action.at))

    def take(self, action: actions.Dispatch) -> None:
        """A bad node is always free. A node that the attempt avoids refuses it."""
        label, function = action.endpoint, self.functions[action.task]
        nodes = self.nodes[label]
        bad = self.bad[label]
        is_bad = bad in nodes and self.now < self.bad_until[label] and self.bad_function in {None, function}
        node = bad if is_bad and self.rng.random() < 0.5 else self.rng.choice(nodes)
        host, _, manager = node.split()
        more: dict[str, Any] = {"attempt": action.attempt, "node": node}
        if host in action.avoid or manager in action.avoid:
            self.plan(self.now + 0.01, stimuli.Bounced(at=self.now + 0.01, **more))
        elif is_bad and node == bad:
            failure = Failure(Kind.USER, "OSError", "Input/output error", FailureAction.ELSEWHERE, raised=True)
            self.plan(self.now + 0.05, stimuli.Failed(at=self.now + 0.05, failure=failure, **more))
        else:
            end = self.now + SECONDS * self.rng.uniform(0.9, 1.1)
            self.plan(end, stimuli.Finished(at=end, **more))
