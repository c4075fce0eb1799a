"""A picture of the pools as a frame for a terminal, and as one plain line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .fabric_state import FabricState
    from .pool_state import EndpointView, PoolView

#: Terminals narrower than this get fewer columns.
WIDE: Final = 120
_STYLES: Final = {
    "up": "green",
    "suspect": "yellow",
    "down": "bold red",
    "reviving": "magenta",
    "draining": "cyan",
    "drained": "cyan",
}
_TASK_STYLES: Final = {"waiting": "", "running": "cyan", "finished": "green", "failed": "bold red"}
_CHROME: Final = 11
"""Lines of a frame that are neither endpoints nor reroutes."""


@dataclass(frozen=True, kw_only=True)
class ConnectionState:
    """What is known about the connection.

    Attributes:
        clock: now, on the clock that `Picture.apply` was given.
        lost_for: seconds since the fabric answered last; None while it answers.
        finished_run: what is read is the data of a run that is over.
        resyncs: gaps in what was read.
    """

    clock: float
    lost_for: float | None = None
    finished_run: bool = False
    resyncs: int = 0


def frame(state: FabricState, line: ConnectionState, width: int, height: int) -> RenderableType:
    """One frame, at most about ``height`` lines high.

    Args:
        state: what is known.
        line: what is known about the connection.
        width: columns of the terminal.
        height: lines of the terminal.
    """
    pools = state.pools()
    if not pools:
        return Group(Text("No pool has said anything yet."), _connection(line))
    pool = pools[0]
    room = max(6, height - _CHROME)
    rows = max(3, room - min(len(pool.reroutes), room // 2))
    return Group(
        _title(pool, line),
        _endpoints(state, pool, line, rows, width),
        _tasks(pool, width),
        *_reroutes(pool, max(3, room - min(rows, len(pool.endpoints))), width),
        *_notes(state, pools, line),
    )


def plain(state: FabricState, line: ConnectionState) -> str:
    """One line that says the same in short, for logs and pipes."""
    pools = state.pools()
    fabric = _connection(line).plain
    if not pools:
        return f"no pool yet; {fabric}"
    pool = pools[0]
    tasks = ", ".join(f"{count} {name}" for name, count in pool.tasks().items())
    endpoints = ", ".join(f"{each.name} {each.state} {each.in_flight}/{each.slots}" for each in _sorted(pool))
    end = f"ended ({pool.stop_reason})" if pool.stop_reason else "ended"
    ended = f"{end}; " if pool.stopped else ""
    return f"{pool.name or 'pool'}: {ended}{tasks}, {pool.rerouted} rerouted, {pool.late} late; {endpoints}; {fabric}"


def local_time(stamp: str) -> str:
    """The hour, minute and second here of an RFC 3339 time; as it is if it is none."""
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S")
    except (ValueError, OverflowError):
        return stamp[:8]


def _title(pool: PoolView, line: ConnectionState) -> Text:
    title = Text.assemble((pool.name or "pool", "bold"))
    if pool.started:
        title.append(f"  since {local_time(pool.started)}")
    if pool.stopped:
        reason = f": {pool.stop_reason}" if pool.stop_reason else ""
        title.append("  ")
        title.append(f"run ended {local_time(pool.stopped)}{reason}", "bold green")
    elif line.finished_run:
        title.append("  ")
        title.append(f"run over since {local_time(pool.last_time)}, without a goodbye", "bold yellow")
    title.append("  ")
    title.append_text(_connection(line))
    if pool.run_dir:
        title.append(f"\n{pool.run_dir}", "dim")
    return title


def _connection(line: ConnectionState) -> Text:
    if line.lost_for is not None:
        return Text(f"fabric lost since {line.lost_for:.0f} s", "bold red")
    if line.finished_run:
        return Text("fabric: kept data", "dim")
    return Text("fabric connected", "green")


def _sorted(pool: PoolView) -> list[EndpointView]:
    return sorted(pool.endpoints.values(), key=lambda each: each.name)


def _endpoints(state: FabricState, pool: PoolView, line: ConnectionState, rows: int, width: int) -> RenderableType:
    table = Table(expand=True, box=None, padding=(0, 1, 0, 0), header_style="bold", title_justify="left")
    table.add_column("endpoint", no_wrap=True, max_width=24, ratio=None)
    if width >= WIDE:
        table.add_column("site", no_wrap=True, max_width=16)
    table.add_column("state", no_wrap=True, min_width=8)
    for name in ("slots", "in flight" if width >= WIDE else "busy", "rate/s", "finished"):
        table.add_column(name, justify="right", no_wrap=True)
    if width >= WIDE:
        table.add_column("heard", justify="right", no_wrap=True)
    shown = _sorted(pool)
    # With few endpoints on a narrow terminal there is room below for what is missing beside.
    lines = 2 if width < WIDE and 2 * len(shown) <= rows else 1
    table.add_column("last evidence", ratio=1, no_wrap=lines == 1, overflow="ellipsis")
    if len(shown) > rows:
        # Trouble first: what is up is worth a line only if there is room.
        shown = sorted(shown, key=lambda each: each.state == "up")[: rows - 1]
    for each in shown:
        generation = f" #{each.generation + 1}" if each.generation else ""  # its second life is #2
        evidence = f"{local_time(each.evidence_time)} {each.evidence}" if each.evidence else ""
        cells = [Text(each.name + generation)]
        cells += [Text(each.site)] if width >= WIDE else []
        cells += [Text(each.state, _STYLES.get(each.state, "dim")), Text(str(each.slots)), Text(str(each.in_flight))]
        cells += [Text("-" if pool.stopped else f"{each.rate:.1f}"), Text(str(each.finished))]
        cells += [_received(state, each.name, line)] if width >= WIDE else []
        text = Text(evidence)
        if lines > 1:
            text.truncate(lines * max(16, width - 52), overflow="ellipsis")
        table.add_row(*cells, text)
    hidden = len(pool.endpoints) - len(shown)
    return Group(table, Text(f"and {hidden} more", "dim")) if hidden else table


def _received(state: FabricState, endpoint: str, line: ConnectionState) -> Text:
    """How many of an endpoint's nodes beat, and how long ago the most silent one did."""
    nodes = state.nodes_of(endpoint)
    if not nodes or line.finished_run or line.lost_for is not None:  # then it is the fabric that is silent
        return Text("-", "dim")
    ages = [line.clock - node.received for node in nodes]
    silent = sum(age > 3 * node.interval for node, age in zip(nodes, ages, strict=True))
    if silent:
        return Text(f"{silent} of {len(nodes)} silent {max(ages):.0f} s", "yellow")
    return Text(f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}", "green")


def _tasks(pool: PoolView, width: int) -> Text:
    text = Text("\ntasks  ", "bold")
    counts = pool.tasks()
    for state, count in counts.items():
        text.append(f"{count} {state}  ", _TASK_STYLES[state] if count else "dim")
    total = sum(counts.values())
    if total:
        text.append(f"({100 * (counts['finished'] + counts['failed']) / total:.0f} % of {total})  ", "not bold")
    if width < WIDE:
        text.append("\n       ")
    text.append(f"{pool.rerouted} rerouted  {pool.late} late", "" if pool.rerouted or pool.late else "dim")
    return text


def _reroutes(pool: PoolView, rows: int, width: int) -> list[RenderableType]:
    if not pool.reroutes:
        return []
    table = Table(expand=True, box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("reroutes", no_wrap=True)
    table.add_column("task", justify="right", no_wrap=True)
    table.add_column("from", no_wrap=True, max_width=width // 5)
    table.add_column("to", no_wrap=True, max_width=width // 5)
    table.add_column("reason", ratio=1, no_wrap=True, overflow="ellipsis")
    for each in list(pool.reroutes)[: -rows - 1 : -1]:
        went = Text(each.went) if each.went else Text("waits", "dim")
        table.add_row(local_time(each.time), str(each.task), Text(each.left), went, Text(each.reason))
    return [Text(""), table]


def _notes(state: FabricState, pools: list[PoolView], line: ConnectionState) -> list[RenderableType]:
    notes = [
        f"said by {other.source}: {each.name} {each.state}: {each.evidence}"
        for other in state.others()[-2:]
        for each in list(other.endpoints.values())[-1:]
    ]
    if state.dropped_changes or state.dropped_samples:
        notes.append(f"dropped on the way: {state.dropped_changes} events, {state.dropped_samples} samples")
    if line.resyncs:
        notes.append(f"{line.resyncs} gaps: older events were trimmed away, counts come from the pool")
    if state.malformed or state.unknown:
        notes.append(f"not understood: {state.malformed} malformed events, {state.unknown} of unknown type")
    if len(pools) > 1:
        notes.append(f"{len(pools) - 1} other run{'s' if len(pools) > 2 else ''} on this fabric")  # noqa: PLR2004
    return [Text(""), *(Text(note, "dim", no_wrap=True, overflow="ellipsis") for note in notes)] if notes else []
