"""How fast a bridge carries events between two embedded fabrics, and how it catches up after its line was cut.

    python benchmarks/fabric_bridge.py [--backlog 400000] [--rate 20000] [--cut 60] [--json FILE]

Server, server, producer, bridge and reader are five processes on this machine; the line is a proxy in the reader's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from diaspora_parsl import Fabric, open_fabric
from diaspora_parsl import events as ev
from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.testing.services.tcp_proxy import Wan

SITE = """
home = "site"
state = "state"
[fabrics.site]
url_variable = "BENCH_SITE"
[fabrics.cloud]
url_variable = "BENCH_CLOUD"
[[links]]
from = "site"
to = "cloud"
[[links]]
from = "cloud"
to = "site"
"""
REASON = "4 of 8 slots are idle there, the most of all endpoints that are up now and have what it needs"
#: Seconds between two batches of the producer.
TICK = 0.01


def batch(envelopes: EventBuilder, first: int, count: int) -> list[ev.Event]:
    """Events of about 420 bytes."""
    return [
        envelopes.wrap(
            ev.TaskDispatched(task=number, attempt=number, endpoint="alpha", site="site", reason=REASON),
            str(number), "alpha", time.time(),
        )
        for number in range(first, first + count)
    ]  # fmt: skip


def produce(url: str, rate: float, seconds: float) -> None:
    """Publish at a steady rate; what a stall holds up is published at once after it."""
    fabric, envelopes = open_fabric(url), EventBuilder("/site/pool/run")
    began, sent, total = time.monotonic(), 0, int(rate * seconds)
    while sent < total:
        due = min(total, int((time.monotonic() - began) * rate) + 1) - sent
        if due > 0:
            events = batch(envelopes, sent, due)
            while not published(fabric, events):
                pass
            sent += due
        time.sleep(TICK)
    fabric.close()


def published(fabric: Fabric, events: list[ev.Event]) -> bool:
    """Whether the fabric said that it has them; if not, some may come twice."""
    try:
        fabric.publish(events)
    except FabricUnavailableError:
        return False
    return True


class Arrivals:
    """Reads the cloud's tasks: how many, how late, whether in order, whether twice."""

    def __init__(self, fabric: Fabric) -> None:
        self._reader = fabric.subscribe((ev.TOPIC_TASK,), "earliest")
        self.ids: set[str] = set()
        self.read = self.unordered = self._newest = 0
        self.delays: list[float] = []
        self.delay = 0.0

    def look(self) -> None:
        """Read what there is."""
        try:
            events = self._reader.read(0.05)
        except FabricUnavailableError:
            return  # the machine is so busy that a server is late
        for event in events:
            self.read += 1
            if event.id in self.ids:
                continue
            self.ids.add(event.id)
            self.unordered += event.sequence <= self._newest
            self._newest = event.sequence
        if events:
            self.delay = time.time() - datetime.fromisoformat(events[-1].time).timestamp()
            self.delays += [time.time() - datetime.fromisoformat(one.time).timestamp() for one in events[::100]]

    def until(self, count: int, limit: float) -> None:
        """Read so many different events."""
        end = time.monotonic() + limit
        while len(self.ids) < count and time.monotonic() < end:
            self.look()

    def close(self) -> None:
        """Let go."""
        self._reader.close()


class Bench:
    """Two fabrics, a line, a bridge that can be started."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.site, self.cloud = (
            stack.enter_context(contextlib.closing(open_fabric("embedded", folder / name)))
            for name in ("site", "cloud")
        )
        self.line = stack.enter_context(Wan.to(self.cloud.url))
        self.arrivals = stack.enter_context(contextlib.closing(Arrivals(self.cloud)))
        (folder / "site.toml").write_text(SITE, encoding="utf-8")

    def bridge(self) -> psutil.Process:
        """Start it."""
        environment = {**os.environ, "BENCH_SITE": self.site.url, "BENCH_CLOUD": self.line.url(self.cloud.url)}
        command = [sys.executable, "-m", "diaspora_parsl.cli.main", "bridge", str(self._folder / "site.toml")]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self._stack.callback(_end, process)
        assert process.stderr is not None
        while "up" not in process.stderr.readline():
            assert process.poll() is None
        return psutil.Process(process.pid)

    def producer(self, rate: float, seconds: float) -> None:
        """Start it."""
        command = [sys.executable, __file__, "--produce", self.site.url, str(rate), str(seconds)]
        self._stack.callback(_end, subprocess.Popen(command))


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    process.communicate(timeout=15)


@contextlib.contextmanager
def benched() -> Iterator[Bench]:
    """A bench, and nothing of it afterwards."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield Bench(Path(folder), stack)


def _figures(bench: Bench, events: int) -> dict[str, float]:
    arrivals = bench.arrivals
    return {
        "events": events,
        "lost": events - len(arrivals.ids),
        "twice": arrivals.read - len(arrivals.ids),
        "unordered": arrivals.unordered,
    }


def backlog(events: int) -> dict[str, float]:
    """Everything is there before the bridge starts."""
    with benched() as bench:
        envelopes = EventBuilder("/site/pool/run")
        for first in range(0, events, 1000):
            waiting = batch(envelopes, first, 1000)
            while not published(bench.site, waiting):
                pass
        process = bench.bridge()
        spent = sum(process.cpu_times()[:2])
        bench.arrivals.look()
        before, began = len(bench.arrivals.ids), time.monotonic()
        bench.arrivals.until(events, 120)
        rate = (len(bench.arrivals.ids) - before) / (time.monotonic() - began)
        cost = 1e6 * (sum(process.cpu_times()[:2]) - spent) / max(1, len(bench.arrivals.ids) - before)
        return {"rate": rate, "cpu_us": cost, **_figures(bench, events)}


def steady(rate: float, seconds: float) -> dict[str, float]:
    """They are carried as they happen."""
    with benched() as bench:
        process = bench.bridge()
        spent = sum(process.cpu_times()[:2])
        bench.producer(rate, seconds)
        bench.arrivals.until(1, 30)
        began = time.monotonic()
        bench.arrivals.until(int(rate * seconds), seconds + 60)
        took = time.monotonic() - began
        delays = sorted(bench.arrivals.delays)
        return {
            "rate": len(bench.arrivals.ids) / took,
            "delay_p50_ms": 1e3 * statistics.median(delays),
            "delay_p99_ms": 1e3 * delays[int(0.99 * len(delays))],
            "cpu_us": 1e6 * (sum(process.cpu_times()[:2]) - spent) / len(bench.arrivals.ids),
            **_figures(bench, int(rate * seconds)),
        }


def cut(rate: float, seconds: float) -> dict[str, float]:
    """The line lets nothing through for so long, while events go on to happen."""
    with benched() as bench:
        bench.bridge()
        whole = int(rate * (seconds + 30))
        bench.producer(rate, seconds + 30)
        bench.arrivals.until(int(rate * 5), 60)
        bench.line.cut("drop")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            bench.arrivals.look()
        bench.line.mend()
        mended, before = time.monotonic(), len(bench.arrivals.ids)
        first = 0.0
        while (bench.arrivals.delay > 1.0 or not first) and time.monotonic() < mended + 120:
            bench.arrivals.look()
            if not first and len(bench.arrivals.ids) > before:
                first = time.monotonic()
        caught_up = time.monotonic()
        carried = len(bench.arrivals.ids) - before
        bench.arrivals.until(whole, 60)
        return {
            "backlog": rate * seconds,
            "first_s": first - mended,
            "caught_up_s": caught_up - mended,
            "rate": carried / (caught_up - first),
            **_figures(bench, whole),
        }


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", type=int, default=400_000, help="events that wait for the bridge")
    parser.add_argument("--rate", type=float, default=20_000, help="events per second, as they happen")
    parser.add_argument("--seconds", type=float, default=20, help="of those")
    parser.add_argument("--cut", type=float, default=60, help="seconds that the line is cut")
    parser.add_argument("--cut-rate", type=float, default=8_000, help="events per second meanwhile")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--produce", nargs=3, metavar=("URL", "RATE", "SECONDS"), help="be the producer")
    arguments = parser.parse_args()
    if arguments.produce:
        url, rate, seconds = arguments.produce
        produce(url, float(rate), float(seconds))
        return
    figures = {
        "backlog": backlog(arguments.backlog),
        "steady": steady(arguments.rate, arguments.seconds),
        "cut": cut(arguments.cut_rate, arguments.cut),
    }
    for name, found in figures.items():
        print(name, ", ".join(f"{key} {value:,.1f}" for key, value in found.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
