"""A block of two nodes of a real Slurm: an agent is on each, knows when the job ends, and ends with it."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parsl.launchers import SrunLauncher

from diaspora_parsl import AgentLauncher, open_fabric
from diaspora_parsl import events as ev
from diaspora_parsl.testing.services.slurm import LocalSlurm


@pytest.fixture
def cluster() -> Iterator[LocalSlurm]:
    reason = LocalSlurm.why_not()
    if reason is not None:
        pytest.skip(f"no Slurm cluster can run here: {reason}")
    with LocalSlurm("alpha", nodes=2) as alpha:
        yield alpha
    assert not alpha.processes()


def test_every_node_of_a_block_has_an_agent_while_the_block_lives(cluster: LocalSlurm, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    launcher = AgentLauncher(SrunLauncher(), endpoint="alpha", site="anl", fabric=tmp_path / "fabric.json")
    path = shlex.quote(str(Path(sys.executable).parent))
    provider = cluster.provider(nodes_per_block=2, launcher=launcher, worker_init=f"export PATH={path}:$PATH",
                                walltime="00:10:00")  # fmt: skip
    provider.script_dir = str(tmp_path / "scripts")
    received: list[tuple[str, ev.Payload]] = []

    with contextlib.closing(open_fabric("embedded", tmp_path)) as fabric:
        subscription = fabric.subscribe([ev.TOPIC_RESOURCE], "earliest")

        def until(condition: Callable[[], object]) -> None:
            end = time.monotonic() + 60
            while not condition():
                assert time.monotonic() < end, received[-4:]
                batch = [(event.source, event.payload()) for event in subscription.read(0.2)]
                received.extend((source, payload) for source, payload in batch if payload is not None)

        def sources(kind: type[ev.Payload]) -> set[str]:
            return {source for source, payload in received if isinstance(payload, kind)}

        job = provider.submit("sleep 300", 1, "parsl.alpha.block-7")
        try:
            until(lambda: len(sources(ev.NodeHeartbeat)) == 2)
            until(lambda: any(isinstance(p, ev.NodeSampled) and 0 < p.walltime <= 600 for _, p in received))
            assert {payload.block for _, payload in received if isinstance(payload, ev.NodeHeartbeat)} == {"7"}
        finally:
            provider.cancel([job])
        until(lambda: not [p for p in cluster.processes() if "agent" in p.cmdline()])
        subscription.close()
