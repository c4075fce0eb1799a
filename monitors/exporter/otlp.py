"""Spans for OpenTelemetry; the only file that imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from .spans import Track, Tracks

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from diaspora_parsl.events import Event

_SCOPE: Final = InstrumentationScope("diaspora_parsl")
_CLOSE_MILLISECONDS: Final = 3000


class Spans:
    """Makes spans of events, and hands them to an exporter of OpenTelemetry in a thread of its own.

    Args:
        exporter: of OpenTelemetry: `otlp`, or one of your own.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._tracks = Tracks()
        self._processor = BatchSpanProcessor(exporter)
        self._resource = Resource.create({"service.name": "diaspora_parsl"})

    def emit(self, event: Event) -> None:
        """Take one event in; never blocks, never raises."""
        for track in self._tracks.apply(event):
            self._processor.on_end(self._span(track))

    def close(self) -> None:
        """Send what is left, within some seconds; idempotent."""
        self._processor.force_flush(_CLOSE_MILLISECONDS)
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _span(self, track: Track) -> ReadableSpan:
        return ReadableSpan(
            name=track.name,
            context=_context(track.trace_id, track.span_id),
            parent=None if track.parent_id is None else _context(track.trace_id, track.parent_id),
            resource=self._resource,
            attributes=track.attributes,
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, track.error) if track.error else Status(StatusCode.OK),
            start_time=track.start,
            end_time=track.end,
            instrumentation_scope=_SCOPE,
        )


def span_exporter(endpoint: str) -> SpanExporter:
    """What sends spans to a collector, Jaeger or the like, over HTTP.

    Args:
        endpoint: such as ``http://localhost:4318/v1/traces``.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  (if asked for)

    return OTLPSpanExporter(endpoint=endpoint, timeout=3)


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
