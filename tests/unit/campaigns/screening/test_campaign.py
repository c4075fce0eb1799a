from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from parsl.config import Config
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import open_fabric
from diaspora_parsl.campaigns.parsl_configs import load_config, settle_in
from diaspora_parsl.campaigns.screening import campaign as module
from diaspora_parsl.campaigns.screening.budget import Budget
from diaspora_parsl.campaigns.screening.campaign import Campaign
from diaspora_parsl.campaigns.screening.library.candidates import find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.objectives import DockingObjective
from diaspora_parsl.campaigns.screening.objectives.app import here
from diaspora_parsl.campaigns.screening.records import Result, Session
from diaspora_parsl.campaigns.screening.results.ledger import Ledger
from diaspora_parsl.campaigns.screening.results.run_events import events_of_run
from diaspora_parsl.campaigns.screening.session import new_folder
from diaspora_parsl.campaigns.screening.settings import Plan
from diaspora_parsl.campaigns.screening.target.receptor import shipped_target
from diaspora_parsl.campaigns.screening.workspace import LEDGER
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.events import Event, TaskSubmitted, encode_payload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diaspora_parsl.campaigns.screening.progress import Progress

CANDIDATES = find_candidates(combinatorial_library(120))


def config(folder: Path) -> Config:
    return Config(
        executors=[ThreadPoolExecutor(label="threads", max_threads=4)],
        run_dir=str(folder / "parsl"),
        strategy="none",
        initialize_logging=False,  # Parsl leaves its log open
    )


def pretend(smiles: str, *_: object) -> Result:
    now = time.time()
    return Result(status="ok", score=-4 - len(smiles) / 20, started=now, ended=now, where=here())


def run(
    folder: Path,
    plan: Plan,
    dock: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    seen: list[Progress] | None = None,
) -> Any:
    monkeypatch.setattr(module, "score_molecule", dock)
    seen = [] if seen is None else seen
    with Ledger(folder / LEDGER) as ledger:
        outcome = Campaign(
            candidates=CANDIDATES, objective=DockingObjective(target=shipped_target()), plan=plan, ledger=ledger,
            observers=(seen.append,),
        ).run(config(folder))  # fmt: skip
        return outcome, ledger.rows(), seen


def test_results_steer_the_choice_as_they_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    running, most = 0, 0

    def dock(smiles: str, *rest: object) -> Result:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        number = next(numbers)
        wanted = sum(number >= start for start in (20, 36, 50))  # fits take as long as this machine is busy
        deadline = time.monotonic() + 60
        while seen[-1:] and seen[-1].models < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        with lock:
            running -= 1
        return pretend(smiles, *rest)

    seen: list[Progress] = []
    numbers = itertools.count()
    outcome, rows, _ = run(tmp_path, Plan(budget=60, initial=12, in_flight=4, refit_every=4), dock, monkeypatch, seen)
    assert (outcome.submitted, outcome.settled, outcome.lost, outcome.interrupted) == (60, 60, 0, False)
    assert len(rows) == len({row.molecule for row in rows}) == 60
    assert most == 4
    assert sum(row.model == 0 for row in rows) >= 12
    assert len({row.model for row in rows}) > 3
    random = [row.score for row in rows if row.model == 0]
    chosen = [row.score for row in rows if row.model > 0]
    assert sum(chosen) / len(chosen) < sum(random) / len(random)
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert (seen[-1].fraction, seen[-1].in_flight) == (1.0, 0)


def test_an_error_of_parsl_is_a_lost_row_and_the_campaign_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = iter(range(1000))

    def dock(smiles: str, *rest: object) -> Result:
        if next(count) % 3 == 0:
            raise OSError("the node is gone")
        return pretend(smiles, *rest)

    outcome, rows, _ = run(tmp_path, Plan(budget=30), dock, monkeypatch)
    lost = [row for row in rows if row.status == "lost"]
    assert outcome.lost == len(lost) == 10
    assert lost[0].detail == "OSError: the node is gone"
    assert len(rows) == 30


@pytest.mark.parametrize("raises", [False, True])
def test_docking_that_works_nowhere_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, raises: bool
) -> None:
    def dock(smiles: str, *rest: object) -> Result:
        if raises:
            raise OSError("no chemistry here")
        return replace(pretend(smiles, *rest), status="dock", score=None, detail="no chemistry here")

    with pytest.raises(ConfigurationError, match=r"could not be docked anywhere.*no chemistry here"):
        run(tmp_path, Plan(budget=100), dock, monkeypatch)
    with Ledger(tmp_path / LEDGER) as ledger:
        assert 10 <= len(ledger.rows()) < 40


def test_a_folder_with_a_campaign_gets_a_number(tmp_path: Path) -> None:
    assert new_folder(tmp_path / "run") == tmp_path / "run"
    for name in ("run", "run-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / LEDGER).touch()
    assert new_folder(tmp_path / "run") == tmp_path / "run-3"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "has no `config`"),
        ("config = 3", "has no `config`"),
        ("1 / 0", "raised ZeroDivisionError"),
        ("def fresh_config(): raise OSError('no site')", "raised OSError: no site"),
    ],
)
def test_a_useless_configuration_says_why(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        load_config(tmp_path / "c.py")


def test_a_configuration_keeps_its_own_run_dir(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text(
        "from parsl.config import Config\ndef fresh_config(): return Config(run_dir='mine')\nconfig = Config()\n"
    )
    assert settle_in(load_config(tmp_path / "c.py"), tmp_path).run_dir == "mine"
    assert settle_in(Config(), tmp_path).run_dir == str(tmp_path / "parsl")


def test_events_are_read_back_from_an_embedded_fabric(tmp_path: Path) -> None:
    def event(number: int, when: str) -> Event:
        return Event(
            id=str(number), source="pool", type=TaskSubmitted.event_type(), subject="x", time=when, partitionkey="k",
            sequence=number, data=encode_payload(TaskSubmitted(task=number, function="score_molecule")),
        )  # fmt: skip

    fabric = open_fabric("embedded", tmp_path)
    fabric.publish([event(1, "2026-01-01T00:00:00Z"), *(event(n, "2026-01-02T00:00:00Z") for n in range(2, 500))])
    fabric.close()
    found = events_of_run(tmp_path, since=1767312000.0)  # the second of January
    assert [one.sequence for one in found] == list(range(2, 500))


def test_no_fabric_or_a_broken_one_gives_no_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert events_of_run(tmp_path, 0.0) == []
    assert not caplog.records
    (tmp_path / "fabric.json").write_text('{"url": "redis://127.0.0.1:9/0"}')
    assert events_of_run(tmp_path, 0.0) == []
    assert "cannot be read" in caplog.text


def session(folder: Path, number: int, plan: Plan, *, budget: Budget | None = None, stop_at: int | None = None) -> Any:
    """One session on a folder; ended without notice when so many molecules are settled."""

    def stop(progress: Progress) -> None:
        if stop_at is not None and progress.done >= stop_at:
            raise InterruptedError

    with Ledger(folder / LEDGER) as ledger:
        ledger.begin_session(Session(number=number, started=time.time()))
        campaign = Campaign(
            candidates=CANDIDATES, objective=DockingObjective(target=shipped_target()), plan=plan, budget=budget,
            ledger=ledger, session=number, observers=(stop,),
        )  # fmt: skip
        with contextlib.suppress(InterruptedError):
            campaign.run(config(folder))
        return ledger.rows(), ledger.picks(), ledger.in_flight(), ledger.fits()


@pytest.mark.parametrize("rounds", [0, 3])
def test_a_resumed_campaign_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(module, "score_molecule", pretend)
    plan = Plan(budget=48, initial=16, in_flight=4, refit_every=4, rounds=rounds, seed=3)
    before, picks, held, _ = session(tmp_path, 1, plan, stop_at=24)
    assert 24 <= len(before) < 48
    after, every, rest, fits = session(tmp_path, 2, plan)
    assert not rest
    assert len(after) == len({row.molecule for row in after}) == 48
    assert {row.molecule: row for row in before}.items() <= {row.molecule: row for row in after}.items()
    new = every[len(picks) :]
    assert [pick.molecule for pick in new][: len(held)] == [pick.molecule for pick in held]
    twice = [molecule for molecule, count in Counter(pick.molecule for pick in every).items() if count > 1]
    assert sorted(twice) == sorted(pick.molecule for pick in held)
    assert {row.attempts for row in after if row.molecule in twice} <= {2}
    assert [fit.number for fit in fits] == list(range(1, len(fits) + 1))
    (tmp_path / "whole").mkdir()
    whole, order, _, _ = session(tmp_path / "whole", 1, plan)
    first = [pick.molecule for pick in order][:16]
    assert list(dict.fromkeys(pick.molecule for pick in every))[:16] == first
    if rounds:
        assert {fit.session for fit in fits} == {1, 2}
        assert [(r.molecule, r.score, r.model) for r in after] == [(r.molecule, r.score, r.model) for r in whole]


@pytest.mark.parametrize(
    ("budget", "most"), [(Budget(molecules=100, cpu_hours=20 / 3600), 26), (Budget(wall_time=0.001), 0)]
)
def test_the_first_limit_ends_a_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: Budget, most: int
) -> None:
    def dock(smiles: str, *rest: object) -> Result:
        return replace(pretend(smiles, *rest), seconds=1.0)

    monkeypatch.setattr(module, "score_molecule", dock)
    rows, _, held, _ = session(tmp_path, 1, Plan(budget=100, in_flight=4), budget=budget)
    assert not held
    assert most - 6 <= len(rows) <= most


def test_tasks_in_flight_follow_the_workers_that_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(1000))

    def dock(smiles: str, *rest: object) -> Result:
        result = pretend(smiles, *rest)
        return replace(result, where=replace(here(), pid=1000 + next(numbers) % 8))

    monkeypatch.setattr(module, "score_molecule", dock)
    seen: list[Progress] = []
    with Ledger(tmp_path / LEDGER) as ledger:
        Campaign(
            candidates=CANDIDATES, objective=DockingObjective(target=shipped_target()),
            plan=Plan(budget=80, in_flight=3), ledger=ledger, adaptive=True, observers=(seen.append,),
        ).run(config(tmp_path))  # fmt: skip
    assert max(progress.in_flight for progress in seen) > 8
