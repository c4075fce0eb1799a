"""What the events of a fabric say, as metrics for Prometheus."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from diaspora_parsl import events as ev
from diaspora_parsl.core.failures import Kind
from diaspora_parsl.core.health.assessor import State
from diaspora_parsl.fabric.dedup import Deduplicator

from ..view.fabric_state import FabricState, age

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import Metric

    from ..view.pool_state import EndpointView, PoolView

PREFIX: Final = "diaspora_parsl_"
#: Pools, endpoints of one pool, and nodes, links and the like that have metrics; what comes beyond is counted only.
MOST_POOLS: Final = 50
MOST_ENDPOINTS: Final = 1_000
MOST_SAMPLED: Final = 10_000
#: Seconds without an event after which a pool makes room for others, and after which a sample is dropped.
_FORGOTTEN: Final = 600.0
_STALE: Final = 60.0
_LABEL_LENGTH: Final = 128
_BUCKETS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
_POOL: Final = ("pool", "source")
_ENDPOINT: Final = ("pool", "source", "endpoint", "site")
_NODE: Final = ("endpoint", "block", "node")
_STATES: Final = (*(str(state) for state in State), "reviving")
#: Samples of these become gauges as they are: one of each number, with the texts as labels.
_SAMPLED: Final = frozenset({"node", "link"})


class _Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_BUCKETS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        total, found = 0, []
        for bound, count in zip((*map(str, _BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Metrics(Collector):
    """A fold of events, and what a scrape of it gives. Thread-safe. Never raises, whatever the events hold.

    The numbers of labels are bounded, so that neither a long life nor a hostile publisher fills a Prometheus.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        #: Whether the fabric answers, and how often events were trimmed before they were read; set by the reader.
        self.is_up = False
        self.resyncs = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = Deduplicator()
        self._picture = FabricState()
        self._last: dict[str, float] = {}
        self._types: Counter[str] = Counter(malformed=0, unknown=0)
        self._failed: Counter[tuple[str, str]] = Counter()
        self._rerouted: Counter[tuple[str, str]] = Counter()
        self._seconds: dict[tuple[str, str], _Histogram] = {}
        self._samples: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, float]] = {}
        self._ignored = 0

    def apply(self, events: Iterable[ev.Event], *, old: bool = False) -> None:
        """Take in what was read; doubles are noticed.

        Args:
            events: in the order in which they were read.
            old: Whether the events are older than this reader: they count as received when they were sent.
        """
        with self._lock:
            now = self._clock()
            for event in self._seen.drop_duplicates(events):
                self._take(event, now - age(event) if old else now)

    def _take(self, event: ev.Event, now: float) -> None:
        try:
            payload = event.payload()
        except ValueError:
            self._types["malformed"] += 1
            return
        if payload is None:
            self._types["unknown"] += 1
            return
        short = event.type.removeprefix(ev.PREFIX)
        self._types[short] += 1
        noun = short.partition(".")[0]
        if isinstance(payload, ev.NodeHeartbeat | ev.NodeStopped):
            self._node(event, payload, now)
        elif noun in _SAMPLED and payload.topic == ev.TOPIC_RESOURCE:
            self._sample(noun, payload, now)
        elif isinstance(payload, ev.FabricDropped):
            self._picture.apply(event)
        elif payload.topic != ev.TOPIC_CONTROL and self._has_room(event.source, payload, now):
            if payload.topic == ev.TOPIC_TASK:
                self._task(event.source, payload)
            else:
                self._picture.apply(event, now)

    def _has_room(self, source: str, payload: ev.Payload, now: float) -> bool:
        if source not in self._last and len(self._last) >= MOST_POOLS:
            oldest = min(self._last, key=self._last.__getitem__)
            if now - self._last[oldest] < _FORGOTTEN:
                self._ignored += 1
                return False
            self._forget(oldest)
        self._last[source] = max(now, self._last.get(source, now))
        pool = self._picture.sources.get(source)
        endpoint = getattr(payload, "endpoint", "")
        many = getattr(payload, "endpoints", ())
        if len(many) > MOST_ENDPOINTS or (
            pool is not None and endpoint not in pool.endpoints and len(pool.endpoints) >= MOST_ENDPOINTS
        ):
            self._ignored += 1
            return False
        return True

    def _forget(self, source: str) -> None:
        del self._last[source]
        self._picture.sources.pop(source, None)
        for kept in (self._failed, self._rerouted, self._seconds):
            for key in [key for key in kept if key[0] == source]:
                del kept[key]

    def _task(self, source: str, payload: ev.Payload) -> None:
        match payload:
            case ev.TaskFinished() if self._is_known(source, payload.endpoint):
                self._seconds.setdefault((source, payload.endpoint), _Histogram()).observe(payload.seconds)
            case ev.TaskRerouted() if self._is_known(source, payload.endpoint):
                self._rerouted[source, payload.endpoint] += 1
            case ev.TaskFailed():
                self._failed[source, payload.kind if payload.kind in set(Kind) else "other"] += 1

    def _is_known(self, source: str, endpoint: str) -> bool:
        """Count an event of a task; only the pool's own events add endpoints, and topics are read in any order."""
        pool = self._picture.sources.get(source)
        return pool is not None and endpoint in pool.endpoints

    def _node(self, event: ev.Event, payload: ev.NodeHeartbeat | ev.NodeStopped, now: float) -> None:
        key = (payload.endpoint, payload.block, payload.node)
        if key not in self._picture.nodes and not self._may_keep(len(self._picture.nodes), now):
            return
        self._picture.apply(event, now)
        if isinstance(payload, ev.NodeStopped):
            self._picture.nodes.pop(key, None)

    def _may_keep(self, many: int, now: float) -> bool:
        if many < MOST_SAMPLED:
            return True
        nodes = self._picture.nodes
        for key in [key for key, node in nodes.items() if now - node.received > _FORGOTTEN]:
            del nodes[key]
        if len(nodes) < MOST_SAMPLED:
            return True
        self._ignored += 1
        return False

    def _sample(self, noun: str, payload: ev.Payload, now: float) -> None:
        values: dict[str, Any] = {field: getattr(payload, field) for field in payload.__struct_fields__}
        labels = tuple((name, text[:_LABEL_LENGTH]) for name, text in values.items() if isinstance(text, str))
        for name, value in values.items():
            key = (f"{noun}_{name}", labels)
            if not isinstance(value, int | float) or value < 0:  # below zero: not known
                continue
            if key not in self._samples and len(self._samples) >= MOST_SAMPLED:
                self._samples = {k: kept for k, kept in self._samples.items() if now - kept[1] < _STALE}
                if len(self._samples) >= MOST_SAMPLED:
                    self._ignored += 1
                    return
            self._samples[key] = (float(value), now)

    # --- what a scrape gives --------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        with self._lock:
            now = self._clock()
            families = [*self._of_pools(now), *self._of_endpoints(), *self._of_tasks(), *self._of_nodes(now)]
            families += self._of_fabric()
        yield from families

    def _of_pools(self, now: float) -> list[Metric]:
        up = _gauge("pool_up", "1 while the pool runs; 0 once it said goodbye or fell silent for a minute.", _POOL)
        tasks = _gauge("pool_tasks", "Tasks that are not settled, by state.", (*_POOL, "state"))
        counters = {
            name: _counter(f"pool_{name}", text, _POOL)
            for name, text in (
                ("finished", "Results of attempts that counted."),
                ("failed", "Tasks settled with an error."),
                ("rerouted", "Attempts given up where they were."),
                ("late", "Results of superseded attempts, dropped."),
                ("hedged", "Second attempts of slow tasks."),
            )
        }
        silence = _gauge("pool_silence_seconds", "Seconds since the last event of the pool.", _POOL)
        for view in self._pools():
            labels = _pool_labels(view)
            quiet = now - self._last[view.source]
            up.add_metric(labels, float(not view.stopped and quiet < _STALE))
            status = view.status
            if not view.stopped:
                silence.add_metric(labels, quiet)
            if status is not None and not view.stopped:
                tasks.add_metric([*labels, "waiting"], status.waiting)
                tasks.add_metric([*labels, "in_flight"], status.in_flight)
            if status is not None:
                for name, family in counters.items():
                    family.add_metric(labels, getattr(status, name))
        return [up, tasks, silence, *counters.values()]

    def _of_endpoints(self) -> list[Metric]:
        state = _gauge("endpoint_state", "1 for the state that the endpoint is in.", (*_ENDPOINT, "state"))
        figures: list[tuple[Any, Callable[[EndpointView], float]]] = [
            (_gauge("endpoint_up", "1 while the endpoint takes attempts.", _ENDPOINT), lambda e: e.state == "up"),
            (_gauge("endpoint_slots", "Attempts that it can run at a time.", _ENDPOINT), lambda e: e.slots),
            (_gauge("endpoint_in_flight", "Attempts that are there.", _ENDPOINT), lambda e: e.in_flight),
            (_gauge("endpoint_rate", "Results per second.", _ENDPOINT), lambda e: e.rate),
            (_gauge("endpoint_generation", "How often it was rebuilt.", _ENDPOINT), lambda e: e.generation),
            (_counter("endpoint_finished", "Results from there.", _ENDPOINT), lambda e: e.finished),
        ]
        for pool in self._pools():
            if pool.stopped:
                continue
            for view in pool.endpoints.values():
                labels = [*_pool_labels(pool), _label(view.name), _label(view.site)]
                for family, figure in figures:
                    family.add_metric(labels, float(figure(view)))
                for one in _STATES:
                    state.add_metric([*labels, one], float(view.state == one))
        return [state, *(family for family, _ in figures)]

    def _of_tasks(self) -> list[Metric]:
        labels = (*_POOL, "endpoint")
        seconds = HistogramMetricFamily(
            f"{PREFIX}task_seconds", "From the dispatch of an attempt to its result.", labels=labels
        )
        rerouted = _counter("endpoint_rerouted", "Attempts given up at this endpoint.", labels)
        failures = _counter("task_failures", "Tasks settled with an error, by kind.", (*_POOL, "kind"))
        names = {view.source: _pool_labels(view) for view in self._pools()}
        for (source, endpoint), histogram in self._seconds.items():
            if source in names:
                seconds.add_metric([*names[source], _label(endpoint)], histogram.buckets(), histogram.sum)
        for (source, endpoint), count in self._rerouted.items():
            if source in names:
                rerouted.add_metric([*names[source], _label(endpoint)], count)
        for (source, kind), count in self._failed.items():
            if source in names:
                failures.add_metric([*names[source], kind], count)
        return [seconds, rerouted, failures]

    def _of_nodes(self, now: float) -> list[Metric]:
        up = _gauge("node_up", "1 while the agent of the node publishes heartbeats in time.", _NODE)
        silence = _gauge("node_silence_seconds", "Since the last heartbeat of the node.", _NODE)
        for node in self._picture.nodes.values():
            quiet = now - node.received
            if quiet < _FORGOTTEN:
                labels = [_label(node.endpoint), _label(node.block), _label(node.node)]
                up.add_metric(labels, float(quiet < 3 * max(1.0, min(60.0, node.interval))))
                silence.add_metric(labels, quiet)
        sampled: dict[tuple[str, tuple[str, ...]], Any] = {}
        for (name, labelled), (value, at) in self._samples.items():
            if now - at < _STALE:
                key = (name, tuple(label for label, _ in labelled))
                if key not in sampled:
                    sampled[key] = _gauge(name, "As it was sampled there.", key[1])
                sampled[key].add_metric([text for _, text in labelled], value)
        return [up, silence, *sampled.values()]

    def _of_fabric(self) -> list[Metric]:
        up = _gauge("fabric_up", "1 while the fabric answers the exporter.", ())
        up.add_metric([], float(self.is_up))
        resyncs = _counter("fabric_resyncs", "Times that events were trimmed away before they were read.", ())
        resyncs.add_metric([], self.resyncs)
        events = _counter("fabric_events", "Events read, by type; doubles are left out.", ("type",))
        for kind, count in self._types.items():
            events.add_metric([kind], count)
        dropped = _counter("fabric_dropped", "Events that publishers could neither send nor keep.", ("what",))
        dropped.add_metric(["state_change"], self._picture.dropped_changes)
        dropped.add_metric(["sample"], self._picture.dropped_samples)
        ignored = _counter("exporter_ignored", "Events about more pools, endpoints or nodes than have metrics.", ())
        ignored.add_metric([], self._ignored)
        return [up, resyncs, events, dropped, ignored]

    def _pools(self) -> list[PoolView]:
        return [view for view in self._picture.pools() if view.source in self._last]


def _label(text: str) -> str:
    return text[:_LABEL_LENGTH]


def _pool_labels(view: PoolView) -> list[str]:
    return [_label(view.name), _label(view.source)]


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def _counter(name: str, text: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)
