"""What a pool needs of the SDK of Globus Compute: the only file of the product that imports it."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
import uuid
from typing import Any

from diaspora_parsl.errors import ConfigurationError

try:
    from globus_compute_sdk import Client
    from globus_compute_sdk.errors import TaskExecutionFailed
    from globus_compute_sdk.sdk import executor as sdk_module
    from globus_compute_sdk.sdk.executor import Executor
    from globus_sdk import GlobusError, NetworkError, UserApp
except ImportError as missing:
    raise ConfigurationError(
        'Globus Compute endpoints need the SDK of Globus Compute: pip install "diaspora-parsl[globus]".'
    ) from missing

__all__ = ["Exit", "OwnGroupExecutor", "TaskExecutionFailed", "default_client", "leave", "log_in", "what_became"]

logger = logging.getLogger(__name__)


class Exit:
    """Shared by the SDK Executors of one endpoint: once it is left, none of them begins to wait for results."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_left = False

    @staticmethod
    def watch_for_task_results(_executor: Executor, _futures: list[Any]) -> int:
        """In place of the SDK's thread that would: nobody does."""
        return 0


class _Watcher(sdk_module._ResultWatcher):  # noqa: SLF001 - what receives the results has no public name
    """The SDK's thread that receives results, without an error that ends it.

    What came through a channel that is lost comes again through the next one. The SDK acknowledges it there all the
    same, before that one is open, fails with it five times in a row, and gives all results up.
    """

    def _on_channel_closed(self, channel: Any, exc: Exception) -> None:
        self._to_ack.clear()
        super()._on_channel_closed(channel, exc)


class OwnGroupExecutor(Executor):
    """An SDK Executor with a task group of its own; the SDK's is shared by all Executors of the process.

    And one that can be left: else a submission that is answered late starts a thread that keeps the interpreter alive
    until its results come, which may be never.
    """

    def __init__(self, endpoint_id: str, group: uuid.UUID | None, leaving: Exit, **options: Any) -> None:
        self._own_group: uuid.UUID | None = None
        self._leaving = leaving
        super().__init__(endpoint_id, **options)
        self._own_group = group

    @property
    def task_group_id(self) -> uuid.UUID | None:
        """The group that results are received for."""
        return self._own_group

    @task_group_id.setter
    def task_group_id(self, group: uuid.UUID | str | None) -> None:
        self._own_group = None if group is None else uuid.UUID(str(group))

    def _get_result_watcher(self) -> Any:
        with self._leaving.lock:
            if self._leaving.is_left:
                return self._leaving
            group = uuid.UUID(str(self.task_group_id))
            watcher = sdk_module._RESULT_WATCHERS.get(group)  # noqa: SLF001 - as the SDK does here
            if watcher is None or not watcher.is_alive():
                watcher = _Watcher(group, self.client, port=self.amqp_port)
                watcher.daemon = True  # it may sleep for ten seconds before it connects again
                watcher.start()
            return watcher


def default_client() -> Any:
    """A client with the login that is stored on this host."""
    return Client(do_version_check=False)


@functools.cache  # once per process, however many endpoints there are
def log_in() -> None:
    """See to it that `default_client` has a login, asking for it if there is none and somebody to be asked.

    The SDK itself would ask with the first request, from whatever thread that comes.

    Raises:
        ConfigurationError: there is none; the message says how to log in.
    """
    try:
        app = default_client().app
        if app is None:  # it needs none
            return
        with contextlib.closing(app):
            if app.login_required():
                if isinstance(app, UserApp) and not (sys.stdin is not None and sys.stdin.isatty()):
                    raise ConfigurationError(
                        "Globus Compute does not know you on this host. Log in once, at a terminal: "
                        "python -c 'from globus_compute_sdk import Client; Client().app.login()'. "
                        "Or set GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET: a service account's."
                    )
                app.login()
    except NetworkError as error:  # the others of the pool can work meanwhile
        logger.warning("Globus cannot be reached now, to see whether it knows you: %s. It is tried again.", error)
    except (GlobusError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"Globus refused the login: {error}") from error


def leave(client: Any, leaving: Exit, limit: float) -> None:
    """Nobody waits any more for results that come through this client.

    The SDK keeps the interpreter alive as long as a result is awaited: its threads must be ended. One of them may be
    asleep before it connects again; it is waited for at most ``limit`` seconds.
    """
    with leaving.lock:
        leaving.is_left = True
    watchers = sdk_module._RESULT_WATCHERS  # noqa: SLF001 - nothing public ends them
    for watcher in [watcher for watcher in list(watchers.values()) if watcher.client is client]:
        watcher.shutdown(wait=False, cancel_futures=True)
        watcher.join(limit)


def what_became(client: Any, tasks: list[str]) -> dict[str, dict[str, Any]]:
    """What the service says of these tasks, by id; what it does not know is missing.

    Raises:
        Exception: the service cannot be asked.
    """
    web = client._compute_web_client  # noqa: SLF001 - the public `get_batch_result` only logs what failed
    found: dict[str, dict[str, Any]] = web.v2.get_task_batch(tasks)["results"]
    return found
