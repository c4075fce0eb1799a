"""The fabric beside a bare client of the same server: what telling costs, how much passes, how soon, what a kill loses.

    python benchmarks/fabric.py [emit] [throughput] [latency] [kill] [--quick] [--json FILE]

Producer, consumer and server are processes of their own. The bare client is redis-py: XADD of the same bytes in
pipelines, or one by one where it is asked how soon, and an XREAD of the same stream.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import secrets
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import redis

from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import TOPIC_RESOURCE, TOPIC_TASK, Event, NodeHeartbeat, TaskDispatched, encode
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.consumer import Consumer
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.fabric.publisher import Publisher
from diaspora_parsl.fabric.transports.redis.embedded_server import find_server, free_port, write_config

REASON = "4 of 8 slots are idle there, the most of all endpoints that are up now and have what it needs"
KEYS = 16
#: The pipeline of the bare client, commands; larger ones gain nothing.
PIPELINE = 500
SPAWN = multiprocessing.get_context("spawn")


def payload(n: int) -> TaskDispatched:
    """What a pool tells most often; about 420 bytes as an event."""
    return TaskDispatched(task=n, attempt=1, endpoint=f"endpoint-{n % KEYS}", site="site", reason=REASON)


class Broker:
    """A server that is killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        password, port = secrets.token_urlsafe(12), free_port()
        self.url = f"redis://:{password}@127.0.0.1:{port}/0"
        self._command = [str(find_server()), str(write_config(folder, port, password, maxmemory="2gb"))]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        fabric = open_fabric(self.url)
        while True:
            try:
                fabric.subscribe([TOPIC_TASK]).close()
                break
            except FabricUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        fabric.close()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it as -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextmanager
def broker() -> Iterator[Broker]:
    """A server of its own, and its folder, gone at the end."""
    # A killed server may have a child that still writes its log again.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Broker(Path(folder))
        made.start()
        try:
            yield made
        finally:
            made.kill()


def percentiles(values: list[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


# --- what telling costs -------------------------------------------------------------------------------------------


def emit(how: str, seconds: float) -> dict[str, float]:
    """What `emit` costs its caller, with the server "up", "away" or "slow".

    Told are 500 events a second one by one, then 50,000 a second, 50 at a time.
    """
    with broker() as server, tempfile.TemporaryDirectory() as folder:
        publisher = Publisher(
            open_fabric(server.url), source="/bench", outbox_path=Path(folder) / "outbox", capacity=10_000
        )
        ended = threading.Event()
        limper = threading.Thread(target=_limp, args=(server, ended))
        try:
            _emit_paced(publisher, 500, 1, 1.0)  # warm
            if how == "away":
                server.kill()
            elif how == "slow":
                limper.start()
            steady = _emit_paced(publisher, 500, 1, seconds)
            busy = _emit_paced(publisher, 50_000, 50, seconds)
            stats = publisher.stats()
        finally:
            ended.set()
            if limper.ident is not None:
                limper.join(5)
            publisher.close()
    figures = {"dropped": float(stats.dropped_state_changes + stats.dropped_samples), "emits": float(stats.emitted)}
    figures["steady_p50_us"], figures["steady_p99_us"] = percentiles(steady)
    figures["busy_p50_us"], figures["busy_p99_us"] = percentiles(busy)
    return figures


def _limp(server: Broker, ended: threading.Event) -> None:
    """Every answer takes up to 0.4 s; the time-out of the client is 1 s."""
    while not ended.is_set():
        server.signal(signal.SIGSTOP)
        ended.wait(0.4)
        server.signal(signal.SIGCONT)
        ended.wait(0.02)


def _emit_paced(publisher: Publisher, per_second: int, at_once: int, seconds: float) -> list[float]:
    """The microseconds that each call took."""
    payloads = [payload(n) for n in range(int(per_second * seconds))]
    costs = []
    began = time.perf_counter()
    for first in range(0, len(payloads), at_once):
        for one in payloads[first : first + at_once]:
            before = time.perf_counter()
            publisher.emit(one, "task", one.endpoint)
            costs.append(1e6 * (time.perf_counter() - before))
        time.sleep(max(0.0, began + (first + at_once) / per_second - time.perf_counter()))
    return costs


# --- producers and consumers, each in a process of its own --------------------------------------------------------


def bodies(count: int) -> list[bytes]:
    """The same events as bytes, for the bare client, which need not make them."""
    envelopes = EventBuilder("/bench")
    return [encode(envelopes.wrap(payload(n), "task", f"endpoint-{n % KEYS}", time.time())) for n in range(count)]


def connect(url: str) -> Any:
    """The bare client; its replies have no exact types."""
    return redis.Redis.from_url(url)


def bare_produce(url: str, count: int, reported: Any) -> None:
    """Pipelines of XADD."""
    client, made = connect(url), bodies(count)
    reported.put(("began", time.monotonic()))
    for first in range(0, count, PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for body in made[first : first + PIPELINE]:
            pipeline.xadd("bare", {"e": body}, maxlen=1_000_000, approximate=True)
        pipeline.execute()
    client.close()


def bare_consume(url: str, count: int, reported: Any) -> None:
    """XREAD until all are there; nothing is decoded."""
    client, cursor, got = connect(url), b"0-0", 0
    reported.put(("ready", 0.0))
    while got < count:
        for _, entries in client.xread({"bare": cursor}, count=1000, block=500):
            cursor = entries[-1][0]
            got += len(entries)
    reported.put(("ended", time.monotonic()))
    client.close()


def fabric_produce(url: str, count: int, reported: Any) -> None:
    """As fast as a publisher takes them without keeping more than a few in its queue."""
    fabric = open_fabric(url)
    publisher = Publisher(fabric, source="/bench")
    reported.put(("began", time.monotonic()))
    for n in range(count):
        publisher.emit(payload(n), "task", f"endpoint-{n % KEYS}")
        if n % 1000 == 0:
            while publisher.stats().waiting > 10_000:
                time.sleep(0.001)
    publisher.close(60)
    fabric.close()


def fabric_consume(url: str, count: int, reported: Any) -> None:
    """A reader: events are decoded, and doubles dropped."""
    fabric, got, done = open_fabric(url), [0], threading.Event()

    def count_them(events: list[Event]) -> None:
        got[0] += len(events)
        if got[0] >= count:
            reported.put(("ended", time.monotonic()))
            done.set()

    reader = Consumer(fabric, [TOPIC_TASK], count_them, position="earliest", on_up=lambda: reported.put(("ready", 0.0)))
    done.wait(300)
    reader.close()
    fabric.close()


def bare_beat(url: str, count: int, per_second: int) -> None:
    """One XADD after the other, each with its time."""
    client, made = connect(url), bodies(count)
    began = time.monotonic()
    for n, body in enumerate(made):
        time.sleep(max(0.0, began + n / per_second - time.monotonic()))
        client.xadd("bare", {"t": repr(time.time()), "e": body}, maxlen=1_000_000, approximate=True)
    client.close()


def bare_hear(url: str, count: int, reported: Any) -> None:
    """The microseconds from each XADD to its XREAD."""
    client, cursor = connect(url), b"0-0"
    reported.put(("ready", []))
    delays: list[float] = []
    while len(delays) < count:
        for _, entries in client.xread({"bare": cursor}, count=1000, block=500):
            now = time.time()
            cursor = entries[-1][0]
            delays += [1e6 * (now - float(fields[b"t"])) for _, fields in entries]
    reported.put(("delays", delays))
    client.close()


def fabric_beat(url: str, count: int, per_second: int) -> None:
    """One event after the other."""
    fabric = open_fabric(url)
    publisher = Publisher(fabric, source="/bench")
    began = time.monotonic()
    for n in range(count):
        time.sleep(max(0.0, began + n / per_second - time.monotonic()))
        publisher.emit(payload(n), "task", f"endpoint-{n % KEYS}")
    publisher.close(10)
    fabric.close()


def fabric_hear(url: str, count: int, reported: Any) -> None:
    """The microseconds from each `emit` to the callback of a reader."""
    fabric, done = open_fabric(url), threading.Event()
    delays: list[float] = []

    def hear(events: list[Event]) -> None:
        now = time.time()
        delays.extend(1e6 * (now - datetime.fromisoformat(event.time).timestamp()) for event in events)
        if len(delays) >= count:
            done.set()

    reader = Consumer(fabric, [TOPIC_TASK], hear, position="earliest", on_up=lambda: reported.put(("ready", [])))
    done.wait(300)
    reported.put(("delays", delays))
    reader.close()
    fabric.close()


# --- how much, how soon -------------------------------------------------------------------------------------------


def _both(produce: Callable[..., None], given: tuple[Any, ...], consume: Callable[..., None], count: int,
          wanted: int) -> dict[str, Any]:  # fmt: skip
    """Run consumer and producer on a server of their own; what they told."""
    with broker() as server:
        reported: Any = SPAWN.Queue()
        consumer = SPAWN.Process(target=consume, args=(server.url, count, reported))
        consumer.start()
        received = dict([reported.get(timeout=60)])
        arguments = (server.url, count, reported) if not given else (server.url, count, *given)
        producer = SPAWN.Process(target=produce, args=arguments)
        producer.start()
        try:
            while len(received) < wanted:
                received.update([reported.get(timeout=300)])
        finally:
            for process in (producer, consumer):
                process.join(70)
                if process.is_alive():
                    process.kill()
                    process.join(5)
    return received


def throughput(count: int, rounds: int) -> dict[str, float]:
    """Events a second from the first that is told to the last that is read, in turns."""
    rates: dict[str, list[float]] = {"bare": [], "fabric": []}
    sides = {"bare": (bare_produce, bare_consume), "fabric": (fabric_produce, fabric_consume)}
    for _ in range(rounds):
        for name, (produce, consume) in sides.items():
            received = _both(produce, (), consume, count, 3)
            rates[name].append(count / (received["ended"] - received["began"]))
    ratio = statistics.median(f / b for b, f in zip(rates["bare"], rates["fabric"], strict=True))
    medians = {name: statistics.median(seen) for name, seen in rates.items()}
    return {"bare_rate": medians["bare"], "fabric_rate": medians["fabric"], "rate_ratio": ratio}


def latency(count: int, rounds: int, per_second: int = 500) -> dict[str, float]:
    """Microseconds from telling to hearing, at a steady rate, in turns."""
    seen: dict[str, list[tuple[float, float]]] = {"bare": [], "fabric": []}
    sides = {"bare": (bare_beat, bare_hear), "fabric": (fabric_beat, fabric_hear)}
    for _ in range(rounds):
        for name, (beat, hear) in sides.items():
            received = _both(beat, (per_second,), hear, count, 2)
            seen[name].append(percentiles(received["delays"]))
    ratio = statistics.median(f[0] / b[0] for b, f in zip(seen["bare"], seen["fabric"], strict=True))
    figures = {"latency_ratio": ratio}
    for name, pairs in seen.items():
        figures[f"{name}_p50_us"] = statistics.median(pair[0] for pair in pairs)
        figures[f"{name}_p99_us"] = statistics.median(pair[1] for pair in pairs)
    return figures


# --- what a kill loses --------------------------------------------------------------------------------------------


def tell_many(url: str, count: int, per_second: int, outbox: str, reported: Any) -> None:
    """State changes and, every tenth, a resource sample; then how many of each, and what was dropped."""
    fabric = open_fabric(url)
    publisher = Publisher(fabric, source="/bench", outbox_path=outbox)
    began, told_states = time.monotonic(), 0
    for n in range(count):
        if n % 10 == 0:
            publisher.emit(NodeHeartbeat(endpoint="endpoint-0"), "node")
        else:
            publisher.emit(payload(told_states), "task", f"endpoint-{told_states % KEYS}")
            told_states += 1
        if n % 100 == 0:
            time.sleep(max(0.0, began + n / per_second - time.monotonic()))
    deadline = time.monotonic() + 120
    while publisher.stats().waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    stats = publisher.stats()
    reported.put((told_states, count - told_states, stats.dropped_state_changes, stats.dropped_samples, stats.outages))
    publisher.close()
    fabric.close()


class _Ledger:
    """Which state events came, in which order."""

    def __init__(self) -> None:
        self.states = self.samples = self.disordered = 0
        self._next = list(range(KEYS))

    def note(self, events: list[Event]) -> None:
        """A callback of a reader."""
        for event in events:
            reported = event.payload()
            if isinstance(reported, TaskDispatched):
                key = reported.task % KEYS
                self.states += 1
                self.disordered += (
                    reported.task != self._next[key]
                )  # the next of its key: none lost, none twice, in order
                self._next[key] = reported.task + KEYS
            elif isinstance(reported, NodeHeartbeat):
                self.samples += 1


def kill(count: int, per_second: int, kills: int, away: float) -> dict[str, float]:
    """So many events through a server that is killed with -9 and started again, so many times."""
    ledger = _Ledger()
    with broker() as server, tempfile.TemporaryDirectory() as folder:
        fabric = open_fabric(server.url)
        reader = Consumer(fabric, [TOPIC_TASK, TOPIC_RESOURCE], ledger.note, position="earliest")
        reported: Any = SPAWN.Queue()
        outbox = str(Path(folder) / "outbox")
        producer = SPAWN.Process(target=tell_many, args=(server.url, count, per_second, outbox, reported))
        began = time.monotonic()
        producer.start()
        try:
            for n in range(kills):
                time.sleep(max(0.0, began + (n + 1) * count / per_second / (kills + 1) - time.monotonic()))
                server.kill()
                time.sleep(away)
                server.start()
            states, samples, dropped_states, dropped_samples, outages = reported.get(timeout=300)
            deadline = time.monotonic() + 60
            while ledger.states < states and time.monotonic() < deadline:
                time.sleep(0.05)
            seconds = time.monotonic() - began
        finally:
            producer.join(30)
            if producer.is_alive():
                producer.kill()
                producer.join(5)
            reader.close()
            fabric.close()
        return {
            "told": float(states + samples), "states": float(states), "kills": float(kills), "outages": float(outages),
            "lost": float(states - ledger.states), "disordered": float(ledger.disordered),
            "lost_samples": float(samples - ledger.samples), "doubles": float(reader.doubles),
            "dropped": float(dropped_states + dropped_samples), "seconds": seconds,
        }  # fmt: skip


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "emit": lambda quick: {how: emit(how, 2 if quick else 8) for how in ("up", "away", "slow")},
    "throughput": lambda quick: throughput(50_000 if quick else 300_000, 1 if quick else 5),
    "latency": lambda quick: latency(1000 if quick else 4000, 1 if quick else 5),
    "kill": lambda quick: kill(100_000 if quick else 1_000_000, 20_000, 5, 0.3 if quick else 1.5),
}


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them if none is named")
    parser.add_argument("--quick", action="store_true", help="a short form")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    figures = {}
    for name in arguments.parts or PARTS:
        figures[name] = PARTS[name](arguments.quick)
        print(name, json.dumps(figures[name], indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
