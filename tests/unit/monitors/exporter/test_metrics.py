"""Metrics: what events make of them, how many there can be, and that dashboard and alerts name what exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from diaspora_parsl import events as ev
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.monitors.exporter import metrics as module
from diaspora_parsl.monitors.exporter.assets import asset
from diaspora_parsl.monitors.exporter.metrics import Metrics
from diaspora_parsl.monitors.exporter.server import Exporter, served
from diaspora_parsl.monitors.view.event_feed import EventFeed
from docs.generate.event_examples import EXAMPLES

SOURCE = "/host/pool/run"


class Told:
    """Metrics that are told things, on a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.metrics = Metrics(clock=lambda: self.now)
        self._builders: dict[str, EventBuilder] = {}

    def say(self, *payloads: ev.Payload, source: str = SOURCE) -> Told:
        builder = self._builders.setdefault(source, EventBuilder(source))
        self.metrics.apply([builder.wrap(payload, "x", "x", time.time()) for payload in payloads])
        return self

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Values by label values, source and pool left out."""
        found = {}
        for family in text_string_to_metric_families(scrape(self.metrics)):
            for sample in family.samples:
                if sample.name == f"diaspora_parsl_{name}":
                    labels = {
                        key: value for key, value in sample.labels.items() if key not in {"source", "pool", "site"}
                    }
                    found[tuple(labels.values())] = sample.value
        return found


def scrape(metrics: Metrics) -> str:
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()


def status(endpoint: str = "alpha", state: str = "up") -> ev.EndpointStatus:
    return ev.EndpointStatus(
        endpoint=endpoint, site="anl", state=state, slots=4, in_flight=3, finished=120, rate=2.5, generation=1
    )


STARTED = ev.PoolStarted(pool="pool", endpoints=("alpha", "beta"))


def test_a_pool_and_its_endpoints() -> None:
    reported = Told().say(STARTED, status(), status("beta", "suspect"))
    reported.say(
        ev.PoolStatus(pool="pool", waiting=8, in_flight=3, finished=120, failed=2, rerouted=5, late=1, hedged=4)
    )
    assert reported.samples("pool_up") == {(): 1.0}
    assert reported.samples("pool_tasks") == {("waiting",): 8.0, ("in_flight",): 3.0}
    for name, value in {"finished": 120, "failed": 2, "rerouted": 5, "late": 1, "hedged": 4}.items():
        assert reported.samples(f"pool_{name}_total") == {(): value}
    assert reported.samples("endpoint_up") == {("alpha",): 1.0, ("beta",): 0.0}
    assert reported.samples("endpoint_slots")["alpha",] == 4.0
    states = reported.samples("endpoint_state")
    assert [key for key, value in states.items() if value] == [("alpha", "up"), ("beta", "suspect")]
    reported.now += 61
    assert reported.samples("pool_up") == {(): 0.0}
    assert reported.samples("pool_silence_seconds") == {(): 61.0}


def test_a_pool_that_ended_is_down_at_once_and_has_no_endpoints() -> None:
    reported = Told().say(STARTED, status(), ev.PoolStopped(pool="pool", reason="shut down"))
    assert reported.samples("pool_up") == {(): 0.0}
    assert reported.samples("endpoint_up") == {}


def test_tasks_are_counted_by_time_kind_and_place() -> None:
    reported = Told().say(STARTED)
    reported.say(*(ev.TaskFinished(task=n, attempt=n, endpoint="alpha", site="anl", seconds=0.5) for n in range(4)))
    reported.say(ev.TaskFinished(task=9, attempt=9, endpoint="alpha", site="anl", seconds=1e9))
    reported.say(ev.TaskRerouted(task=1, attempt=1, endpoint="beta", site="uc", reason="gone"))
    reported.say(
        ev.TaskFailed(task=5, kind="user", error="E", message=""),
        ev.TaskFailed(task=6, kind="x" * 99, error="E", message=""),
    )
    buckets = reported.samples("task_seconds_bucket")
    assert (buckets["alpha", "0.3"], buckets["alpha", "1.0"], buckets["alpha", "+Inf"]) == (0.0, 4.0, 5.0)
    assert reported.samples("endpoint_rerouted_total") == {("beta",): 1.0}
    assert reported.samples("task_failures_total") == {("user",): 1.0, ("other",): 1.0}


def test_nodes_are_up_while_they_beat_and_gone_after_their_goodbye() -> None:
    beat = ev.NodeHeartbeat(endpoint="alpha", block="0", node="n1")
    reported = Told().say(beat, source="/agent")
    assert reported.samples("node_up") == {("0", "alpha", "n1"): 1.0}
    reported.now += 5
    assert reported.samples("node_up") == {("0", "alpha", "n1"): 0.0}
    assert reported.samples("node_silence_seconds") == {("0", "alpha", "n1"): 5.0}
    reported.say(ev.NodeStopped(endpoint="alpha", block="0", node="n1"), source="/agent")
    assert reported.samples("node_up") == {}


class NodeMeasured(ev.Payload, frozen=True):
    """A sample of a kind to come."""

    topic = ev.TOPIC_RESOURCE
    is_state_change = False

    endpoint: str
    node: str
    load: float = -1.0
    disk_free: int = -1


def test_samples_of_nodes_and_links_become_gauges_as_they_are() -> None:
    reported = Told().say(NodeMeasured(endpoint="alpha", node="n1", load=2.5), source="/agent")
    assert reported.samples("node_load") == {("alpha", "n1"): 2.5}
    assert reported.samples("node_disk_free") == {}  # not known
    reported.now += 100
    assert reported.samples("node_load") == {}


def test_doubles_malformed_and_unknown_events_and_drops_are_counted() -> None:
    reported = Told()
    event = EventBuilder("/s").wrap(ev.FabricDropped(state_changes=2, samples=30), "x", "x", 1.0)
    reported.metrics.apply([event, event])
    text = ev.encode(event)
    reported.metrics.apply([ev.decode(text.replace(b'"id":"', b'"id":"x').replace(b'"samples":30', b'"samples":"30"'))])
    reported.metrics.apply([ev.decode(text.replace(b'"id":"', b'"id":"y').replace(b"fabric.dropped", b"fabric.eaten"))])
    assert reported.samples("fabric_events_total") == {
        ("fabric.dropped.v1",): 1.0,
        ("malformed",): 1.0,
        ("unknown",): 1.0,
    }
    assert reported.samples("fabric_dropped_total") == {("state_change",): 2.0, ("sample",): 30.0}


def test_the_numbers_of_labels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_POOLS", 3)
    monkeypatch.setattr(module, "MOST_ENDPOINTS", 4)
    monkeypatch.setattr(module, "MOST_SAMPLED", 5)
    reported = Told()
    for number in range(9):
        reported.say(ev.PoolStarted(pool="p" * 5000, endpoints=("alpha",)), source=f"/host/{number}/run")
        reported.say(status(f"endpoint-{number}"), source="/host/0/run")
        reported.say(ev.NodeHeartbeat(endpoint="alpha", node=f"n{number}"), source="/agent")
        reported.say(NodeMeasured(endpoint="alpha", node=f"n{number}", load=1.0), source="/agent")
    assert (
        len([line for line in scrape(reported.metrics).splitlines() if line.startswith("diaspora_parsl_pool_up{")]) == 3
    )
    assert len(reported.samples("endpoint_up")) == 4
    assert len(reported.samples("node_up")) == 5
    assert len(reported.samples("node_load")) == 5
    assert reported.samples("exporter_ignored_total")[()] > 0
    assert max(map(len, scrape(reported.metrics).splitlines())) < 600
    reported.now += 3600  # who is silent makes room
    reported.say(ev.PoolStarted(pool="new", endpoints=("alpha",)), source="/host/new/run")
    reported.say(ev.NodeHeartbeat(endpoint="alpha", node="new"), source="/agent2")
    assert 'source="/host/new/run"' in scrape(reported.metrics)
    assert reported.samples("node_up") == {("", "alpha", "new"): 1.0}


def known_names() -> set[str]:
    """Every sample that every event can lead to."""
    living = [payload for payload in EXAMPLES if not isinstance(payload, ev.NodeStopped | ev.PoolStopped)]
    reported = Told().say(*living).say(*living)
    names = set()
    for family in text_string_to_metric_families(scrape(reported.metrics)):
        names |= {sample.name for sample in family.samples}
    return names


def test_the_dashboard_names_metrics_that_exist() -> None:
    board = json.loads(asset("diaspora_parsl.json"))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queries += [one["definition"] for one in board["templating"]["list"] if one["type"] == "query"]
    named = set(re.findall(r"\bdiaspora_parsl_\w+", " ".join(queries)))
    assert len(named) > 15
    assert named - known_names() == set()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(panel["description"] for panel in board["panels"] if panel["type"] != "row")
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for other in board["panels"]:
            theirs = other["gridPos"]
            apart = (
                place["x"] + place["w"] <= theirs["x"] or theirs["x"] + theirs["w"] <= place["x"]
                or place["y"] + place["h"] <= theirs["y"] or theirs["y"] + theirs["h"] <= place["y"]
            )  # fmt: skip
            assert apart or other is panel


def test_the_alerts_name_metrics_that_exist_and_say_what_to_do(tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = [
        rule for group in yaml.safe_load(asset("alerts.yaml"))["groups"] for rule in group["rules"]
    ]
    named = set(re.findall(r"\bdiaspora_parsl_\w+", " ".join(rule["expr"] for rule in rules)))
    assert named - known_names() == set()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    if promtool := shutil.which("promtool"):
        path = tmp_path / "alerts.yaml"
        path.write_text(asset("alerts.yaml"), encoding="utf-8")
        subprocess.run([promtool, "check", "rules", str(path)], check=True, capture_output=True, timeout=30)


def test_what_an_exporter_read_is_served_and_the_port_is_given_back() -> None:
    url = f"memory://{uuid.uuid4()}"
    fabric = open_fabric(url)
    fabric.publish([EventBuilder(SOURCE).wrap(payload, "x", "x", time.time()) for payload in (STARTED, status())])
    feed = EventFeed(lambda: url)
    reported: list[ev.Event] = []
    exporter = Exporter(feed, reported.append)
    stops = iter(["", "", "SIGINT"])
    assert exporter.run(lambda _: next(stops)) == "SIGINT"
    assert [event.source for event in reported] == [SOURCE, SOURCE]
    with served(exporter.metrics, "127.0.0.1", 0) as port:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
        with pytest.raises(ConfigurationError, match="--port"), served(exporter.metrics, "127.0.0.1", port):
            pass
    with served(exporter.metrics, "127.0.0.1", port):
        pass
    feed.close()
    fabric.close()
    assert 'diaspora_parsl_endpoint_up{endpoint="alpha",pool="pool",site="anl",source="/host/pool/run"} 1.0' in text
    assert "diaspora_parsl_fabric_up 1.0" in text
