"""What a DataFlowKernel says, on the fabric: with Parsl's monitoring database, or without."""

from __future__ import annotations

import logging
import os
import socket
import threading
from pathlib import Path
from typing import Any, Final

from parsl.monitoring import MonitoringHub

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.fabric.address import write_record
from diaspora_parsl.fabric.base import Fabric, open_fabric, redacted
from diaspora_parsl.fabric.publisher import Publisher

from . import messages

logger = logging.getLogger(__name__)

#: Seconds that the end of a run may take to send what waits; the rest stays in the outbox.
_LAST_WORDS: Final = 2.0


#: Seconds in which messages gather: Parsl has several for each task, and nobody decides anything by them.
_GATHER: Final = 0.2


class FabricMonitoringHub(MonitoringHub):
    """``Config(monitoring=FabricMonitoringHub(...))`` publishes what Parsl would write into its database.

    That is the start and the end of the workflow, each status of each try, and each status of each block. It costs the
    workflow some microseconds each, and never a wait. What workers say comes with a `FabricRadio`, or with any radio of
    Parsl's. Without ``database`` there is neither a database nor a process for it.

    Args:
        fabric: ``"embedded"`` (of this run, the same as that of a pool in it), a URL, or an open `Fabric`.
        database: a `MonitoringHub` that is not started, which goes on as it would alone; the settings below are its
            own then.
        workflow_name: as in `MonitoringHub`.
        workflow_version: as in `MonitoringHub`.
        resource_monitoring_enabled: Whether workers report start, end and resource use of a task.
        resource_monitoring_interval: seconds between two samples of that; 0 for none. Each costs a process per task.
        monitoring_debug: as in `MonitoringHub`.

    Raises:
        ConfigurationError: something cannot work; the message says what to write instead.
    """

    def __init__(
        self,
        *,
        fabric: str | Fabric = "embedded",
        database: MonitoringHub | None = None,
        workflow_name: str | None = None,
        workflow_version: str | None = None,
        resource_monitoring_enabled: bool = True,
        resource_monitoring_interval: float = 30.0,
        monitoring_debug: bool = False,
    ) -> None:
        # Not the base's: it asks for a package that only its database needs.
        if isinstance(fabric, str):
            if fabric != "embedded":
                open_fabric(fabric).close()  # refuses what nobody can open, contacts nobody
        elif not isinstance(fabric, Fabric):
            raise ConfigurationError(f'fabric={fabric!r}: write "embedded", a URL such as "redis://host:6379/0", or '
                                     "give a Fabric object.")  # fmt: skip
        if isinstance(database, FabricMonitoringHub):
            raise ConfigurationError(
                "database= is for Parsl's own: write database=MonitoringHub(...), or leave it out."
            )
        self.fabric = fabric
        self.database = database
        if database is None:
            self.workflow_name, self.workflow_version = workflow_name, workflow_version
            self.resource_monitoring_enabled = resource_monitoring_enabled
            self.resource_monitoring_interval = resource_monitoring_interval
            self.monitoring_debug = monitoring_debug
        else:
            self.workflow_name, self.workflow_version = database.workflow_name, database.workflow_version
            self.resource_monitoring_enabled = database.resource_monitoring_enabled
            self.resource_monitoring_interval = database.resource_monitoring_interval
            self.monitoring_debug = database.monitoring_debug
        self._run_dir = ""
        self._opened: Fabric | None = None
        self._publisher: Publisher | None = None
        self._tee: messages.Tee | None = None
        self._pump: threading.Thread | None = None

    def __repr__(self) -> str:
        shown = redacted(self.fabric) if isinstance(self.fabric, str) else self.fabric
        return f"FabricMonitoringHub(fabric={shown!r}, database={self.database!r})"

    def start(self, dfk_run_dir: str, config_run_dir: str | os.PathLike[str], log_config: Any = None) -> None:
        """Called by Parsl before anything else of a run.

        Raises:
            ConfigurationError: it was started before.
        """
        if self._tee is not None:
            raise ConfigurationError("A FabricMonitoringHub serves one run: make a new one for each parsl.load().")
        self._run_dir = dfk_run_dir
        Path(dfk_run_dir).mkdir(parents=True, exist_ok=True)
        queue = None
        if self.database is not None:
            queue = messages.start_hub(self.database, dfk_run_dir, config_run_dir, log_config)
        self._opened = self._open()
        self._publisher = Publisher(
            self._opened if self._opened is not None else self._open_again,
            source=f"/{socket.gethostname()}/parsl/{os.getpid()}/{Path(dfk_run_dir).name}",
            outbox_path=Path(dfk_run_dir) / "monitoring-outbox.sqlite",
            gather=_GATHER,
        )
        self._tee = messages.Tee(self._emit, queue)
        self._pump = threading.Thread(target=self._tee.pump, name="diaspora-hub-pump", daemon=True)
        self._pump.start()
        self.resource_msgs = self._tee
        self.monitoring_hub_active = True

    def close(self) -> None:
        """Called by Parsl after everything else of a run; within some seconds, those of Parsl's database aside."""
        tee, publisher = self._tee, self._publisher
        if tee is None or publisher is None or not self.monitoring_hub_active:
            return
        self.monitoring_hub_active = False
        tee.stop()
        if self._pump is not None:
            self._pump.join(_LAST_WORDS)
        tee.close()
        tee.join_thread()
        publisher.close(_LAST_WORDS)
        if self.database is not None:
            self.database.close()
        if self._opened is not None and isinstance(self.fabric, str):
            self._opened.close()

    def _open(self) -> Fabric | None:
        """The fabric, or None if it cannot be opened now; the run goes on without."""
        if not isinstance(self.fabric, str):
            return self.fabric
        try:
            fabric = open_fabric(self.fabric, self._run_dir)
        except FabricUnavailableError as error:
            logger.warning("Parsl's monitoring starts without its fabric: %s. It is tried again.", error)
            return None
        if self.fabric.startswith(("redis", "rediss")):
            write_record(Path(self._run_dir), fabric.url)  # so that radios and viewers find it by the run directory
        return fabric

    def _open_again(self) -> Fabric:
        return open_fabric(self.fabric, self._run_dir) if isinstance(self.fabric, str) else self.fabric

    def _emit(self, message: messages.Message) -> None:
        try:
            for payload, subject, key in messages.payloads(message):
                if self._publisher is not None:
                    self._publisher.emit(payload, subject, key)
        except Exception as error:  # noqa: BLE001 - a message is worth no workflow
            logger.warning("A message of Parsl's monitoring is not published: %r", error)
