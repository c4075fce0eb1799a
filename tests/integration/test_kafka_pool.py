"""A pool on Kafka: its events and the heartbeats of its blocks go through a broker, and are found there."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from diaspora_parsl.testing.services.kafka import KafkaBroker, MockBroker
    from tests.integration.conftest import PoolOf


def test_pool_agent_and_viewer_meet_on_kafka(pool_of: PoolOf, kafka_broker: KafkaBroker | MockBroker) -> None:
    create = str(kafka_broker.is_real).lower()
    url = f"kafka://{kafka_broker.address}/{secrets.token_hex(4)}?create={create}"
    with LocalSite("alpha", workers=2, node_agent=True) as alpha, pool_of(alpha, fabric=url) as run:
        assert run.results(run.tasks(6)) == [1, 2, 3, 4, 5, 6]
        run.wait_for(ev.NodeHeartbeat, endpoint="alpha")
        run.until(lambda: len(run.events(ev.TaskFinished)) == 6)
        assert {event.task for event in run.events(ev.TaskFinished)} == {
            event.task for event in run.events(ev.TaskSubmitted)
        }
        command = [sys.executable, "-m", "diaspora_parsl.cli.main", "events", "--run-dir", str(run.run_dir)]
        shown = subprocess.run(
            [*command, "--type", "task.finished"], capture_output=True, text=True, timeout=60, check=True
        )
        assert len([json.loads(line) for line in shown.stdout.splitlines()]) == 6
