"""Program: feeds the decoder, and all who take what it gives, with bytes that atheris makes up: `make fuzz`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["diaspora_parsl"]):
    from diaspora_parsl import events as ev
    from diaspora_parsl.events.signing import is_signed
    from diaspora_parsl.executors.inbox.listener import Listener
    from diaspora_parsl.executors.inbox.replay import fold
    from diaspora_parsl.fabric.transports.redis.redis_streams import decode_entry
    from diaspora_parsl.monitors.exporter.metrics import Metrics
    from diaspora_parsl.monitors.exporter.spans import Tracks
    from diaspora_parsl.monitors.view.event_printer import EventFilter
    from docs.generate.event_examples import EXAMPLES, example_event

TRACKS = Tracks()
SITES = {"alpha": "anl", "beta": "uc"}
FILTER = EventFilter(types=("task.*",), endpoint="alpha", task=17)


def one(raw: bytes) -> None:
    """Whatever the bytes are: a `ValueError`, or an event that nobody stumbles over."""
    decode_entry([b"e", raw])
    try:
        event = ev.decode(raw)
    except ValueError:
        return
    if ev.decode(ev.encode(event)) != event:
        raise AssertionError("what is written is not what was read")
    is_signed(event, "key")
    Listener(SITES, "/own", lambda _: None, "pool", key="key").on_events([event])
    fold([event], "pool", SITES, "key")
    FILTER.matches(event)
    metrics = Metrics()
    metrics.apply([event])
    metrics.collect()
    TRACKS.apply(event)


def main() -> None:
    """Run until told to stop; arguments are those of libFuzzer."""
    logging.disable(logging.CRITICAL)
    corpus = Path(sys.argv[1]) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
    if corpus is not None:
        corpus.mkdir(parents=True, exist_ok=True)
        for example in EXAMPLES:
            (corpus / example.event_type()).write_bytes(ev.encode(example_event(example)))
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
