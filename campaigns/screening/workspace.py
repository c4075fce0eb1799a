"""The folder of a campaign: its lock, its files, and everything that a report is made from."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.events import Event, decode

from .records import Fit, Pick, Reroute, Row, Session
from .report.report import ReportInput, write_report
from .results.exports import write_events, write_parquet, write_poses, write_ranked
from .results.idle_times import idle_times
from .results.ledger import Ledger
from .results.reroutes import Fault, Story, at_their_sites, build_story, sentences, together
from .results.run_events import events_of_run

LEDGER: Final = "campaign.sqlite"
#: The library, as read: what can be chosen from.
CANDIDATES: Final = "candidates"
EVENTS: Final = "events.jsonl"
_LOCK: Final = "lock"
_ARCHIVED: Final = "sessions whose events are archived"

#: Locks of this process: the kernel's are between processes.
_held: set[Path] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the one controller of a folder. A lock ends with its process, however that dies, and is never stale.

    Raises:
        ConfigurationError: another controller is at work; the message says which.
    """
    path = (folder / _LOCK).resolve()
    # A record lock, not `flock`: it is not inherited by the processes that a controller leaves behind.
    with path.open("a+", encoding="utf-8") as file:
        try:
            if path in _held:
                raise BlockingIOError
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise ConfigurationError(
                f"{folder} is in use by another controller ({file.read().strip() or 'unknown'}). Wait for its end."
            ) from error
        _held.add(path)
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield
        finally:
            _held.discard(path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Return the record of the campaign in a folder; of a running campaign, the record so far."""

    title: str
    command: str
    settings: dict[str, object]
    quantity: str
    """What the scores are."""
    unit: str
    poses: int
    """How many are wanted as SDF."""
    candidates: int
    rows: Sequence[Row]
    picks: Sequence[Pick]
    fits: Sequence[Fit]
    sessions: Sequence[Session]
    faults: Sequence[Fault]
    reroutes: Sequence[Reroute]
    events: Sequence[Event]
    story: Story

    @property
    def tried(self) -> int:
        """Molecules that were given to Parsl."""
        return len({pick.molecule for pick in self.picks})

    @property
    def in_flight(self) -> int:
        """Molecules that were given to Parsl and have no row."""
        return len({pick.molecule for pick in self.picks} - {row.molecule for row in self.rows})

    @property
    def said(self) -> list[str]:
        """What happened, in sentences."""
        lost = sum(row.status == "lost" for row in self.rows)
        said = sentences(self.tried, lost, self.story, self.faults)
        if killed := sum(session.ending == "killed" for session in self.sessions):
            again = len(self.picks) - self.tried
            said.append(
                f"The controller was killed {'once' if killed == 1 else f'{killed} times'} and resumed: "
                f"{again} molecules that were in flight were docked again, no others."
            )
        if self.in_flight and self.sessions[-1].ending:
            said.append(f"{self.in_flight} were in flight when the campaign was interrupted, and have no row.")
        return said


def read_folder(folder: Path) -> Record:
    """Read everything, also while the campaign runs; changes nothing.

    Raises:
        ConfigurationError: there is no campaign.
    """
    with Ledger(folder / LEDGER, read_only=True) as ledger:
        if ledger.recall("candidates") is None or not (sessions := ledger.sessions()):
            raise ConfigurationError(f"The campaign in {folder} has not begun yet: its library is being read.")
        events = _all_events(folder, sessions, ledger.recall(_ARCHIVED) or [])
        rows = ledger.rows()
        reported = {
            s.number: at_their_sites([r for r in rows if r.session == s.number], events[s.number]) for s in sessions
        }
        return Record(
            title=ledger.recall("title"),
            command=ledger.recall("command"),
            settings=ledger.recall("settings"),
            quantity=ledger.recall("quantity"),
            unit=ledger.recall("unit"),
            poses=ledger.recall("poses"),
            candidates=ledger.recall("candidates"),
            rows=sorted((row for settled in reported.values() for row in settled), key=lambda row: row.molecule),
            picks=ledger.picks(),
            fits=ledger.fits(),
            sessions=sessions,
            faults=ledger.faults(),
            reroutes=ledger.reroutes(),
            events=[event for session in sessions for event in events[session.number]],
            story=together(build_story(events[s.number], reported[s.number], s.number) for s in sessions),
        )


def write_files(folder: Path, record: Record) -> dict[str, Path]:
    """Write the report and the exports; the files by name."""
    files = {
        "report": folder / "report.html",
        "ranking": folder / "ranked.csv",
        "table": folder / "molecules.parquet",
        "poses": folder / "best_poses.sdf",
        "events": folder / EVENTS,
        "ledger": folder / LEDGER,
    }
    write_ranked(files["ranking"], record.rows)
    write_parquet(files["table"], record.rows)
    write_poses(files["poses"], record.rows, record.poses)
    last = record.sessions[-1]
    write_report(
        files["report"],
        ReportInput(
            title=record.title.format(candidates=f"{record.candidates:,}"),
            headline=record.said,
            rows=record.rows,
            candidates=record.candidates,
            started=record.sessions[0].started,
            ended=last.ended or max([last.started, *(row.ended for row in record.rows)]),
            settings=record.settings,
            command=record.command,
            story=record.story,
            faults=record.faults,
            interrupted=last.ending not in ("finished", ""),
            quantity=record.quantity,
            unit=record.unit,
            sessions=record.sessions,
            fits=record.fits,
            pauses=[(one.ended, other.started) for one, other in pairwise(record.sessions) if one.ended is not None],
        ),
    )
    return files


def archive(folder: Path, ledger: Ledger) -> None:
    """Store the history of ended sessions: events in the folder, reroutes and idle times in the ledger."""
    archived = list(ledger.recall(_ARCHIVED) or [])
    rows, picks = ledger.rows(), ledger.picks()
    (folder / EVENTS).touch()
    for session in ledger.sessions():
        if session.number in archived or not session.ending:
            continue
        events = _events_of(folder, session)
        write_events(folder / EVENTS, events)
        settled = [row for row in rows if row.session == session.number]
        molecule_of = {row.pool_task: row.molecule for row in settled if row.pool_task is not None}
        ledger.reroute(
            *(
                Reroute(
                    session=session.number,
                    pool_task=lost.task,
                    molecule=molecule_of.get(lost.task),
                    dispatched=lost.dispatched,
                    given_up=lost.given_up,
                    site=lost.site,
                    endpoint=lost.endpoint,
                    reason=lost.reason,
                    next_site=lost.next_site,
                )
                for lost in build_story(events, settled, session.number).lost_attempts
            )
        )
        until = max((pick.at for pick in picks if pick.session == session.number), default=0.0)
        idle = idle_times(settled, until)
        ledger.settle_session(session.number, workers=idle.workers, longest_wait=idle.longest, waits_over_1s=idle.long)
        archived.append(session.number)
        ledger.remember(_ARCHIVED, archived)


def _all_events(folder: Path, sessions: Sequence[Session], archived: Sequence[int]) -> dict[int, list[Event]]:
    """The events of each session: pools number their tasks from 1, so sessions must be kept apart."""
    found: dict[int, dict[str, Event]] = {session.number: {} for session in sessions}
    if (folder / EVENTS).exists():
        for line in (folder / EVENTS).read_bytes().splitlines():
            event = decode(line)
            at = datetime.fromisoformat(event.time).timestamp()
            number = max((s.number for s in sessions if s.started <= at), default=sessions[0].number)
            found[number][event.id] = event
    for session in sessions:
        if session.number not in archived:
            found[session.number].update({event.id: event for event in _events_of(folder, session)})
    return {number: list(events.values()) for number, events in found.items()}


def _events_of(folder: Path, session: Session) -> list[Event]:
    if not session.run_dir:
        return []
    return events_of_run(folder / session.run_dir, session.started, running=not session.ending)
