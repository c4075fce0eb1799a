"""Generate the documentation page of the events from their types: ``python -m docs.generate.events_page``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from diaspora_parsl.events.envelope import (
    PREFIX,
    TOPIC_CONTROL,
    TOPIC_ENDPOINT,
    TOPIC_RESOURCE,
    TOPIC_TASK,
    Event,
    Payload,
    encode,
)
from diaspora_parsl.events.schema import field_docs, own_types
from docs.generate.event_examples import EXAMPLES, example_event

_HEAD: Final = """\
# Events

<!-- Drawn by `python -m docs.generate.events_page docs/events.md`; a test compares. -->

Events are [CloudEvents 1.0](https://cloudevents.io) in structured JSON. The `type` is `org.diaspora.parsl.` with the
name below; fields may be added, any other change is a new version. Readers ignore fields, extensions and types that
they do not know, and skip events that are damaged, or larger than 256 KiB. `diaspora-parsl events --schema` prints the
JSON Schema.

| attribute | |
|---|---|
| `source`, `id` | together unique |
| `subject` | task or endpoint |
| `time` | RFC 3339, UTC |
| `partitionkey` | order is kept per key |
| `sequence` | counts up per source |
| `originsite`, `viasite`, `hops` | for [bridges](guides/bridge.md): born where, from where, bridges crossed |
| `traceparent` | W3C trace context of a task or an attempt; see [dashboards](guides/dashboards.md) |
| `signature` | of requests; see [security](security.md) |

One event as it travels:

```json
{example}
```
"""
_TOPICS: Final = {
    TOPIC_TASK: ("The life of a task", ""),
    TOPIC_ENDPOINT: ("The life of an endpoint and of a pool", ""),
    TOPIC_CONTROL: (
        "What is asked of pools",
        " Requests are followed if they are signed with the key of the run; see [planned events](guides/planned.md).",
    ),
    TOPIC_RESOURCE: (
        "Samples and heartbeats",
        " When space runs out, samples are dropped first.",
    ),
}


_NAMES: Final[dict[Any, str]] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    tuple[str, ...]: "list of texts",
    tuple[tuple[float, int, int], ...]: "list of triples of numbers",
    dict[str, str | int | float | None]: "names with their values",
}


def page() -> str:
    """The whole page, in Markdown."""
    examples = {type(example): example for example in EXAMPLES}
    parts = [_HEAD.replace("{example}", _pretty(encode(example_event(EXAMPLES[4]))))]
    for topic, (title, note) in _TOPICS.items():
        parts.append(f"## {title}\n\nTopic `{topic}`.{note}\n")
        kinds = [kind for kind in own_types().values() if kind.topic == topic]
        parts += [_section(kind, examples.get(kind)) for kind in kinds]
    return "\n".join(parts)


def _section(kind: type[Payload], example: Payload | None) -> str:
    name = kind.event_type().removeprefix(PREFIX)
    sentence = (kind.__doc__ or "").split("\n\n")[0].replace("``", "`").strip()
    docs = field_docs(kind)
    lines = [f"### {name}", "", sentence, "", "| field | type | |", "|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        default = "" if field.required else f"default `{_shown(field)}`"
        notes = ". ".join(note for note in (docs.get(field.name, "").rstrip(". "), default) if note)
        lines.append(f"| `{field.name}` | {_type(field.type)} | {notes} |")
    if example is not None:
        lines += ["", "```json", msgspec.json.encode(example).decode(), "```"]
    return "\n".join([*lines, ""])


def _type(kind: Any) -> str:
    return _NAMES.get(kind, f"`{getattr(kind, '__name__', kind)}`")


def _shown(field: msgspec.structs.FieldInfo) -> str:
    made = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return msgspec.json.encode(made).decode()


def _pretty(raw: bytes) -> str:
    return msgspec.json.format(msgspec.json.encode(msgspec.json.decode(raw, type=Event))).decode()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
