from __future__ import annotations

from diaspora_parsl.campaigns.screening.records import Row
from diaspora_parsl.campaigns.screening.results.idle_times import idle_times


def row(pid: int, started: float, ended: float) -> Row:
    return Row(molecule=0, name="", smiles="C", status="ok", host="h", pid=pid, started=started, ended=ended)


def test_waits_are_between_molecules_of_one_worker_while_there_is_budget() -> None:
    rows = [row(1, 12.5, 13), row(1, 10, 12), row(1, 15, 16), row(2, 1, 20), row(1, 90, 91)]
    assert idle_times(rows, until=14.0) == (2, 2.0, 1)
    assert idle_times(rows, until=50.0) == (2, 74.0, 2)


def test_no_worker_no_wait() -> None:
    refused = Row(molecule=0, name="", smiles="?", status="parse")
    assert idle_times([refused], until=50.0) == (0, None, 0)
    assert idle_times([row(1, 1, 2)], until=50.0) == (1, None, 0)
