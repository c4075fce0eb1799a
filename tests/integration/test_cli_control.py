"""`drain`, `resume`, `quarantine` and `maintenance` as processes beside a pool that works."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf, Run

COMMAND = [sys.executable, "-m", "diaspora_parsl.cli.main"]
PATIENCE = 60.0


def control(run: Run, *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and all that it said."""
    environment = {name: text for name, text in os.environ.items() if name != "DIASPORA_PARSL_FABRIC"}
    done = subprocess.run(
        [*COMMAND, *arguments, "--run-dir", str(run.run_dir)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout


def sites_of(run: Run, before: int) -> set[str]:
    """Where the tasks ran that were submitted after this one."""
    return {execution.site for execution in run.executions() if execution.task > before}


def test_drained_by_hand_nothing_new_goes_there_until_it_is_resumed(pool_of: PoolOf) -> None:
    with LocalSite("alpha", workers=2) as alpha, LocalSite("beta", workers=2) as beta, pool_of(alpha, beta) as run:
        run.warm_up("alpha", "beta")
        long = run.tasks(4, 12.0)  # longer than a command takes to start on a busy machine
        run.until(lambda: run.bound("alpha") >= 2)
        code, said = control(run, "drain", "alpha", "--reason", "new file system")
        assert code == 0, said
        assert "alpha in pool pool is draining: drained: new file system; 2 attempts still there" in said
        assert run.wait_for(ev.EndpointDraining, endpoint="alpha").reason == "drained: new file system"
        last = run.tasks(12, 0.05)[-1]
        run.results(long)
        last.result(30)
        run.wait_for(ev.EndpointDrained, endpoint="alpha")
        assert sites_of(run, before=max(e.task for e in run.executions()) - 12) == {"beta"}
        assert not run.rerouted()

        code, said = control(run, "resume", "alpha")
        assert code == 0, said
        assert "alpha in pool pool is up: 2 slots" in said
        run.warm_up("alpha")
        run.assert_each_ran_once()


def test_a_drain_with_an_end_ends_by_itself(pool_of: PoolOf) -> None:
    with LocalSite("alpha", workers=2) as alpha, pool_of(alpha) as run:
        run.warm_up("alpha")
        ups = len(run.events(ev.EndpointUp, endpoint="alpha"))
        code, said = control(run, "drain", "alpha", "--for", "2s")
        assert code == 0, said
        assert "is drained: drained until" in said
        (waits,) = run.tasks(1)
        assert waits.result(30)
        assert len(run.events(ev.EndpointUp, endpoint="alpha")) > ups
        assert not run.events(ev.TaskFailed)


def test_quarantined_by_hand_a_probe_decides(pool_of: PoolOf) -> None:
    with LocalSite("alpha", workers=2) as alpha, LocalSite("beta", workers=2) as beta, pool_of(alpha, beta) as run:
        run.warm_up("alpha", "beta")
        code, said = control(run, "quarantine", "alpha", "--for", "2s", "--reason", "odd results")
        assert code == 0, said
        assert "alpha in pool pool is quarantined: quarantined: odd results" in said
        run.results(run.tasks(6, 0.05))
        run.warm_up("alpha")
        probes = [e for e in run.events(ev.TaskDispatched, endpoint="alpha") if e.reason.startswith("probe: ")]
        assert [probe.reason for probe in probes] == ["probe: quarantined: odd results; one probe is allowed"]
        run.assert_each_ran_once()


def test_a_window_announced_for_a_site_keeps_long_work_away_and_ends(pool_of: PoolOf) -> None:
    with (
        LocalSite("alpha", workers=2, site="anl") as alpha,
        LocalSite("beta", workers=1, site="uc") as beta,
        pool_of(alpha, beta) as run,
    ):
        run.warm_up("alpha", "beta")
        code, said = control(run, "maintenance", "anl", "--from", "+4s", "--to", "+8s", "--reason", "cooling")
        assert code == 0, said
        before = len(run.executions())
        run.results(run.tasks(3, 0.2, walltime=60))  # a minute does not fit before the window
        assert {execution.site for execution in run.executions()[before:]} == {"beta"}
        run.results(run.tasks(12, 0.05))  # these do
        drained = run.wait_for(ev.EndpointDrained, endpoint="alpha")
        assert drained.reason.startswith("maintenance until ")
        assert drained.reason.endswith(": cooling")
        run.warm_up("alpha")
        assert not run.rerouted()
        run.assert_each_ran_once()


def test_what_does_not_exist_is_answered_with_what_does(pool_of: PoolOf) -> None:
    with LocalSite("alpha") as alpha, pool_of(alpha) as run:
        run.warm_up("alpha")
        code, said = control(run, "drain", "alpah")
        assert code == 2
        assert "No running pool has an endpoint 'alpah'" in said
        assert "pool pool has alpha" in said
        code, said = control(run, "drain", "alpha", "--pool", "another")
        assert code == 2
        assert "no pool named 'another'" in said
        code, said = control(run, "drain", "alpha", "--for", "soon")
        assert code == 2
        assert "90s, 5m, 2h or 1d" in said
