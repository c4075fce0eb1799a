from __future__ import annotations

import time

from diaspora_parsl.core import stimuli
from diaspora_parsl.core.failure_rules import Rulebook
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.core.settings import EndpointSpec
from diaspora_parsl.executors.runtime.driver import Driver
from diaspora_parsl.executors.runtime.instance import EndpointInstance


def _no_instance(label: str, generation: int) -> EndpointInstance:
    raise AssertionError(f"nothing is built here: {label} {generation}")


def test_a_flood_of_heartbeats_does_not_hold_up_the_end() -> None:
    core = PoolCore([EndpointSpec(label="alpha", revivable=False)])
    driver = Driver("pool", core, _no_instance, lambda *_: None, Rulebook(), None)
    heartbeat = stimuli.HeartbeatReceived(time.monotonic(), "alpha", "block/node")
    driver._handle(heartbeat)
    assert core.assessor.health["alpha"].heartbeats
    core.assessor.health["alpha"].heartbeats.clear()
    driver._closing.set()
    driver._handle(heartbeat)
    assert not core.assessor.health["alpha"].heartbeats
    driver._handle(stimuli.Stopped(time.monotonic()))
    assert core._stopped
    assert driver._delivery.close(1.0)
