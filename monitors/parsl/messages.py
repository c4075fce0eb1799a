"""What is not Parsl's documented interface, as far as monitors touch it: its monitoring messages and its queue."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from multiprocessing.queues import Queue
from typing import Any, Final, TypeAlias

from parsl.monitoring import MonitoringHub
from parsl.monitoring.message_type import MessageType
from parsl.multiprocessing import SpawnContext

from diaspora_parsl.events import BlockChanged, Payload, TryChanged, TrySampled, WorkflowEnded, WorkflowStarted

Message: TypeAlias = tuple[MessageType, Any]

#: Type of messages about begin and end. Parsl of 2025 had none: it marked such samples.
_BEGIN_END: Final = getattr(MessageType, "WORKER_TASK_INFO", MessageType.RESOURCE_INFO)
_NEITHER: Final = {} if _BEGIN_END is not MessageType.RESOURCE_INFO else {"first_msg": False, "last_msg": False}

#: Parsl's names of what a sample holds by names of its own.
_MEASURED: Final = {
    "psutil_process_time_user": "cpu_user",
    "psutil_process_time_system": "cpu_system",
    "psutil_process_memory_resident": "memory",
    "psutil_process_memory_virtual": "memory_virtual",
    "psutil_process_disk_read": "disk_read",
    "psutil_process_disk_write": "disk_written",
    "psutil_process_children_count": "children",
}
_NAMED: Final = {
    "first_msg",
    "last_msg",
    "run_id",
    "task_id",
    "try_id",
    "timestamp",
    "hostname",
    "resource_monitoring_interval",
    *_MEASURED,
}


# --- messages -----------------------------------------------------------------------------------------------------


def payloads(message: Any) -> Iterator[tuple[Payload, str, str]]:
    """What a message of Parsl's monitoring says: payload, subject, and the key that keeps order.

    Raises:
        Exception: it is none, or not as Parsl's are today.
    """
    kind, fields = message
    match kind:
        case MessageType.WORKFLOW_INFO:
            yield _workflow(fields), fields["run_id"], fields["run_id"]
        case MessageType.TASK_INFO:
            yield _of_dfk(fields), *_about(fields)
        case _ if kind is _BEGIN_END and (fields.get("first_msg") or fields.get("last_msg")):
            yield _of_worker(fields), *_about(fields)
        case MessageType.RESOURCE_INFO:
            yield _sample(fields), *_about(fields)
        case MessageType.BLOCK_INFO:
            for block in fields:
                yield _block(block), block["executor_label"], block["executor_label"]
        case MessageType.NODE_INFO:
            return  # HTEX's own view of its managers; agents and pools publish better ones
        case _:
            raise ValueError(f"{kind!r} is no kind of message that is known")


def message(payload: Payload | None) -> Message | None:
    """What a radio's receiver gives to Parsl's database for an event; None if it does not come from a worker.

    Raises:
        ValueError: a time is none.
    """
    match payload:
        case TryChanged(status="running" | "running_ended"):
            is_last = payload.status != "running"
            return _BEGIN_END, {
                "run_id": payload.run,
                "task_id": payload.parsl_task,
                "try_id": payload.parsl_try,
                "hostname": payload.node,
                "block_id": payload.block or None,
                "first_msg": not is_last,
                "last_msg": is_last,
                "timestamp": _local(payload.at),
            }
        case TrySampled():
            return MessageType.RESOURCE_INFO, {
                **_NEITHER,
                **payload.more,
                **{name: getattr(payload, field) for name, field in _MEASURED.items()},
                "run_id": payload.run,
                "task_id": payload.parsl_task,
                "try_id": payload.parsl_try,
                "hostname": payload.node,
                "resource_monitoring_interval": payload.interval,
                "timestamp": _local(payload.at),
            }
        case _:
            return None


def _about(fields: dict[str, Any]) -> tuple[str, str]:
    subject = f"{fields['run_id']}/{fields['task_id']}"
    return subject, subject


def _workflow(fields: dict[str, Any]) -> Payload:
    if "python_version" not in fields:  # Parsl itself distinguishes the two so
        return WorkflowEnded(
            run=fields["run_id"], completed=fields["tasks_completed_count"], failed=fields["tasks_failed_count"]
        )
    return WorkflowStarted(
        run=fields["run_id"],
        name=str(fields.get("workflow_name") or ""),
        release=str(fields.get("workflow_version") or ""),
        parsl=str(fields.get("parsl_version") or ""),
        host=str(fields.get("host") or ""),
        user=str(fields.get("user") or ""),
        run_dir=str(fields.get("rundir") or ""),
    )


def _of_dfk(fields: dict[str, Any]) -> Payload:
    return TryChanged(
        run=fields["run_id"],
        parsl_task=fields["task_id"],
        parsl_try=fields["try_id"],
        status=fields["task_status_name"],
        at=_utc(fields["timestamp"]),
        executor=fields.get("task_executor") or "",
        function=fields.get("task_func_name") or "",
        fails=fields.get("task_fail_count") or 0,
    )


def _of_worker(fields: dict[str, Any]) -> Payload:
    return TryChanged(
        run=fields["run_id"],
        parsl_task=fields["task_id"],
        parsl_try=fields["try_id"],
        status="running" if fields["first_msg"] else "running_ended",
        at=_utc(fields["timestamp"]),
        node=fields["hostname"] or "",
        block=fields["block_id"] or "",
    )


def _sample(fields: dict[str, Any]) -> Payload:
    return TrySampled(
        run=fields["run_id"],
        parsl_task=fields["task_id"],
        parsl_try=fields["try_id"],
        at=_utc(fields["timestamp"]),
        node=fields.get("hostname") or "",
        interval=fields.get("resource_monitoring_interval") or 0.0,
        more={
            name: value if isinstance(value, str | int | float | None) else str(value)
            for name, value in fields.items()
            if name not in _NAMED
        },
        **{field: fields[name] for name, field in _MEASURED.items() if name in fields},
    )


def _block(fields: dict[str, Any]) -> Payload:
    return BlockChanged(
        run=fields["run_id"],
        executor=fields["executor_label"],
        block=str(fields["block_id"]),
        status=fields["status"],
        job=str(fields["job_id"] or ""),
        at=_utc(fields["timestamp"]),
    )


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")  # Parsl's have no zone, and mean the local one


def _local(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone().replace(tzinfo=None)


# --- the queue that everything goes through ---------------------------------------------------------------------------


class Tee(Queue):  # type: ignore[type-arg] # only its stubs know that it has any
    """Replaces the queue of Parsl's monitoring: publishes each message, and passes it to the database if there is one.

    Parsl checks its type, and gives it to processes of its own: there it is a plain queue that leads here. `database`
    is where what comes from the fabric already goes.

    Args:
        emit: Receives each message, in the thread that puts it or, from other processes, in one of its own; must not
            raise and must not block.
        database: the queue of Parsl's database, or None.
    """

    def __init__(self, emit: Callable[[Message], None], database: Queue[Any] | None = None) -> None:
        super().__init__(ctx=SpawnContext)
        self.emit = emit
        self.database = database

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - Queue's
        """Publish a message and pass it on; never blocks."""
        del block, timeout
        self.emit(obj)
        if self.database is not None:
            self.database.put(obj)

    def pump(self) -> None:
        """Treat what other processes put in the same way, until `stop`."""
        while (obj := self.get()) is not None:
            self.put(obj)

    def stop(self) -> None:
        """Have `pump` return once all that is there has been seen to."""
        super().put(None)

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process gets."""
        return _plain, (self.__getstate__(),)


def _plain(state: Any) -> Queue[Any]:
    queue: Queue[Any] = Queue.__new__(Queue)
    queue.__setstate__(state)
    return queue


def start_hub(hub: MonitoringHub, dfk_run_dir: str, config_run_dir: Any, log_config: Any) -> Queue[Any]:
    """Start a hub the way this version of Parsl does; returns the queue of its database."""
    more = (log_config,) if "log_config" in inspect.signature(hub.start).parameters else ()  # not in Parsl of 2025
    hub.start(dfk_run_dir, config_run_dir, *more)
    return hub.resource_msgs
