"""One example of every event type, for its documentation and for tests."""

from __future__ import annotations

from typing import Final

from diaspora_parsl.events import monitoring as m
from diaspora_parsl.events import payloads as p
from diaspora_parsl.events.envelope import Event, Payload, encode_payload

_LOST: Final = "its interchange (pid 4711) ended with exit code -9"
_UNTIL: Final = "2026-12-01T18:00:00Z"
_NOW: Final = "2026-12-01T08:00:00.250000Z"
_RUN: Final = "7d3f0a52-2f3e-4c43-9d7e-0b6a1d0c8f11"

EXAMPLES: Final[tuple[Payload, ...]] = (
    p.TaskSubmitted(task=17, function="docking.dock", tags=("gpu",)),
    p.TaskDispatched(task=17, attempt=21, endpoint="alpha", site="anl", reason="fastest of 2"),
    p.TaskHedged(task=17, attempt=22, endpoint="beta", site="uc", reason="runs for 9.1 s, usual are 2.0 s"),
    p.TaskRerouted(task=17, attempt=21, endpoint="alpha", site="anl", reason=_LOST),
    p.TaskFinished(task=17, attempt=22, endpoint="beta", site="uc", seconds=2.125, attempts=2),
    p.TaskFailed(
        task=18, kind="user", error="ValueError", message="no such ligand", endpoint="beta", site="uc", attempt=23,
        attempts=1, reason="it failed at two places",
    ),
    p.TaskLate(task=17, attempt=21, endpoint="alpha", site="anl"),
    p.EndpointUp(endpoint="alpha", site="anl", reason="4 slots", slots=4),
    p.EndpointSuspect(endpoint="alpha", site="anl", reason="no heartbeat for 4.2 s (phi 9), and no result", phi=9.1),
    p.EndpointDown(endpoint="alpha", site="anl", reason=_LOST, in_flight=6),
    p.EndpointReviving(endpoint="alpha", site="anl", reason=_LOST, generation=1, delay=1.0),
    p.EndpointRefused(endpoint="alpha", site="anl", reason="3 blocks in a row brought no worker", pause=30.0),
    p.EndpointDraining(endpoint="alpha", site="anl", reason="drained: new file system"),
    p.EndpointDrained(endpoint="alpha", site="anl", reason="drained: new file system"),
    p.NodeHeartbeat(endpoint="alpha", site="anl", block="0", node="x1000c0s0b0n0"),
    p.NodeStopped(endpoint="alpha", site="anl", block="0", node="x1000c0s0b0n0", reason="SIGTERM"),
    p.NodeQuarantined(
        endpoint="alpha", site="anl", node="x1000c0s0b0n0", reason="3 of 3 failed here, 12 of 12 succeeded beside it",
        block="0", manager="1f3c", function="docking.dock",
    ),
    p.NodeRestored(endpoint="alpha", site="anl", node="x1000c0s0b0n0", reason="a probe succeeded", block="0"),
    p.EndpointStatus(
        endpoint="alpha", site="anl", state="up", slots=4, in_flight=4, finished=1200, rate=3.5, reason="4 slots"
    ),
    p.PoolStatus(pool="pool", waiting=80, in_flight=8, finished=2400, failed=1, rerouted=6, late=1, hedged=2),
    p.PoolStarted(pool="pool", endpoints=("alpha", "beta"), run_dir="/home/me/runinfo/000"),
    p.PoolStopped(pool="pool", reason="shut down"),
    p.LinkUp(bridge="anl", from_site="anl", to_site="cloud"),
    p.LinkDown(bridge="anl", from_site="anl", to_site="cloud", reason="cloud: cannot be reached"),
    p.LinkStatus(
        bridge="anl", from_site="anl", to_site="cloud", reads=True, writes=True, forwarded=120, waiting=0, thinned=1100
    ),
    p.FabricDropped(state_changes=0, samples=120),
    p.EndpointDrainRequested(endpoint="alpha", reason="new file system", until=_UNTIL),
    p.EndpointResumeRequested(endpoint="alpha"),
    p.EndpointQuarantineRequested(endpoint="alpha", reason="odd results", until=_UNTIL),
    p.MaintenanceAnnounced(place="anl", start="2026-12-01T08:00:00Z", end=_UNTIL, reason="cooling"),
    p.MaintenanceCancelled(place="anl"),
    p.RequestAnswered(
        request="019b7a3f6c00-0123456789ab-1", endpoint="alpha", site="anl", state="draining",
        reason="drained: new file system", in_flight=2,
    ),
    m.NodeSampled(
        endpoint="alpha", site="anl", block="0", node="x1000c0s0b0n0", workers=4, cores=64, load=61.5,
        memory=549_755_813_888, memory_free=211_106_232_532, disk=3_840_000_000_000, disk_free=3_100_000_000_000,
        walltime=5400.0, gpus=((97.0, 38_654_705_664, 42_949_672_960),),
    ),
    m.WorkerDied(
        endpoint="alpha", site="anl", block="0", node="x1000c0s0b0n0", pid=4711, attempt=21,
        proof="8b1a9953c4611296a827abf8c47804d7",
    ),
    m.WorkflowStarted(
        run=_RUN, name="screen.py", release="2026-11-25 08:00:00", parsl="2026.10.26", host="login1", user="me",
        run_dir="/home/me/runinfo/000",
    ),
    m.WorkflowEnded(run=_RUN, completed=2400, failed=1),
    m.TryChanged(
        run=_RUN, parsl_task=17, parsl_try=0, status="running", at=_NOW, executor="pool", function="dock",
        node="x1000c0s0b0n0", block="0",
    ),
    m.TrySampled(
        run=_RUN, parsl_task=17, parsl_try=0, at=_NOW, node="x1000c0s0b0n0", interval=30.0, cpu_user=28.9,
        cpu_system=0.4, memory=412_000_000, memory_virtual=2_100_000_000, disk_read=1_200_000, disk_written=40_000,
        more={"psutil_process_status": "running"},
    ),
    m.BlockChanged(run=_RUN, executor="alpha", block="0", status="RUNNING", job="88123", at=_NOW),
)  # fmt: skip


def example_event(payload: Payload) -> Event:
    """The payload as somebody would find it on the fabric."""
    return Event(
        id="019b7a3f6c00-0123456789ab-1",
        source="/login1/pool/7d3f0a52-2f3e-4c43-9d7e-0b6a1d0c8f11",
        type=payload.event_type(),
        subject=str(getattr(payload, "task", "alpha")),
        time="2026-12-01T08:00:00.250000Z",
        partitionkey=str(getattr(payload, "endpoint", "alpha")),
        sequence=1,
        data=encode_payload(payload),
    )
