"""`diaspora-parsl exporter` beside a run: what Prometheus scrapes, what a collector of spans gets, what workers see."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import PoolOf, Run

COMMAND = [sys.executable, "-m", "diaspora_parsl.cli.main", "exporter"]
PATIENCE = 30.0


def context(seconds: float) -> str:
    """The trace context that a task and a program that it starts can see."""
    import os  # noqa: PLC0415 - it travels alone
    import subprocess  # noqa: PLC0415
    import time  # noqa: PLC0415

    time.sleep(seconds)
    published = subprocess.run(
        ["/bin/sh", "-c", "echo $TRACEPARENT"], capture_output=True, text=True, check=True
    ).stdout
    return f"{os.environ.get('TRACEPARENT', '')} {published.strip()}"


class Collector(BaseHTTPRequestHandler):
    """Takes spans over OTLP/HTTP, as Jaeger does."""

    spans: dict[str, Any]

    def do_POST(self) -> None:
        """One export."""
        request = ExportTraceServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        for group in request.resource_spans:
            for scope in group.scope_spans:
                self.spans.update({f"00-{s.trace_id.hex()}-{s.span_id.hex()}-01": s for s in scope.spans})
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the same
        """Say nothing."""


@contextlib.contextmanager
def collector() -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of a collector, and the spans that it has by their context."""
    spans: dict[str, Any] = {}
    server = HTTPServer(("127.0.0.1", 0), type("Kept", (Collector,), {"spans": spans}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def exporter(run: Run, otlp: str) -> Iterator[str]:
    """The address of the metrics of a run; ended as by Ctrl-C."""
    process = subprocess.Popen(
        [*COMMAND, str(run.run_dir), "--port", "0", "--otlp", otlp], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        assert "metrics at http://127.0.0.1:" in said, said
        yield next(word for word in said.split() if word.startswith("http://")).rstrip(";")
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, rest) == (0, "")


def scraped(url: str) -> dict[str, float]:
    """The samples at an address, by name and endpoint."""
    with urlopen(url, timeout=PATIENCE) as page:  # noqa: S310 - of this test
        families = text_string_to_metric_families(page.read().decode())
    return {
        f"{sample.name.removeprefix('diaspora_parsl_')} {sample.labels.get('endpoint', '')}".strip(): sample.value
        for family in families for sample in family.samples
    }  # fmt: skip


def test_a_run_is_seen_by_prometheus_and_as_traces(pool_of: PoolOf) -> None:
    with (
        collector() as (otlp, spans),
        LocalSite("alpha", workers=2) as alpha,
        pool_of(alpha, tracing=True) as run,
    ):
        with exporter(run, otlp) as url:
            seen = [future.result(PATIENCE) for future in [run.app(context)(0.2) for _ in range(6)]]
            end = time.monotonic() + PATIENCE
            while (found := scraped(url)).get("endpoint_finished_total alpha", 0) < 6 and time.monotonic() < end:
                time.sleep(0.2)
            assert found["fabric_up"] == found["pool_up"] == found["endpoint_up alpha"] == 1.0
            assert found["endpoint_finished_total alpha"] == found["task_seconds_count alpha"] == 6.0
            assert found["endpoint_slots alpha"] == 2.0
        contexts = {one.split()[0] for one in seen}
        assert len(contexts) == 6
        assert all(one == f"{one.split()[0]} {one.split()[0]}" for one in seen)
        attempts = {name: span for name, span in spans.items() if span.parent_span_id}
        assert set(attempts) == contexts
        roots = {span.trace_id: span for span in spans.values() if not span.parent_span_id}
        assert len(roots) == 6
        for span in attempts.values():
            root = roots[span.trace_id]
            assert span.parent_span_id == root.span_id
            assert root.start_time_unix_nano <= span.start_time_unix_nano
            assert span.name == f"{root.name} at alpha"
        assert not run.events(ev.TaskFailed)
