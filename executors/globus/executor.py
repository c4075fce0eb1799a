"""The executor of a Globus Compute endpoint."""

from __future__ import annotations

import functools
import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Final

from diaspora_parsl.backoff import Backoff
from diaspora_parsl.errors import AttemptLostError, PayloadTooLargeError, SubmitFailedError
from diaspora_parsl.events import NodeHeartbeat, Payload

from ..parsl import adapter
from ..parsl.observable import ObservableExecutor, Observation
from .canary import SignsOfLife
from .function_ids import PerFunction
from .journal import Journal
from .rate_limit import RateLimit, shared_rate_limit
from .remote_tasks import RemoteTask, RemoteTasks
from .sdk import Exit, OwnGroupExecutor, TaskExecutionFailed, leave, what_became

logger = logging.getLogger(__name__)

#: Share of the bytes that one submission may have: arguments are not all of it.
_FILL: Final = 0.8
#: Upper bound of the tasks per submission, and per question.
_BATCH: Final = 128
#: Functions whose ids are remembered by their code.
_MOST_FUNCTIONS: Final = 1000
#: Seconds after which a submission that is not answered makes the endpoint suspect, and after which it has failed.
_SUBMIT_DUE: Final = 3.0
_SUBMIT_LIMIT: Final = 20.0
#: Seconds between two looks at what was submitted.
_TURN: Final = 0.01
#: Seconds that the end waits for the SDK's thread, which may be asleep before it connects again.
_WATCHER_LIMIT: Final = 2.0
#: Seconds without requests after the service said that it got too many.
_BARRED: Final = 10.0
#: Seconds for which a result overrules a status that says "offline", if it came so long after that.
_RESULT_SPEAKS: Final = 10.0
_UNDER_WAY: Final = 1.0
#: Number of times that the delay between two questions is doubled while no result comes.
_MOST_DOUBLINGS: Final = 3
#: Seconds between two heartbeats of a real endpoint; its status is at most that old.
_STATUS_AGE: Final = 30.0


def _canary() -> None:
    """Show that somebody runs tasks there."""


class GlobusExecutor(ObservableExecutor):
    """The executor of a `GlobusEndpoint`, for one generation; the arguments are those of the endpoint.

    Two threads: one sends tasks, in batches as large as what came in while the last was under way; one looks after
    what was sent. Results come on the SDK's own thread. An SDK Executor lives until a submission fails; then another
    takes its place, and goes on with the same task group.
    """

    takes = None

    def __init__(
        self,
        *,
        label: str,
        site: str,
        endpoint_id: str,
        client_factory: Callable[[], Any],
        slots: int | None,
        rate_limit: str | RateLimit,
        user_endpoint_config: dict[str, Any] | None,
        status_period: float,
        patience: float,
        payload_limit: int,
        journal: Journal | None = None,
    ) -> None:
        super().__init__()
        self.label = label
        self._site = site
        self._endpoint_id = endpoint_id
        self._client_factory = client_factory
        self._slots = slots
        self._account = shared_rate_limit(rate_limit) if isinstance(rate_limit, str) else rate_limit
        self._user_endpoint_config = user_endpoint_config
        self._status_period = status_period
        self._payload_limit = payload_limit
        self._journal = journal
        self._emit: Callable[[Payload], None] = lambda _: None
        self._lock = threading.Lock()
        self._life = SignsOfLife(patience)
        self._patience = patience
        self._posts = RemoteTasks()
        self._codes = PerFunction()
        self._registered: dict[str, str] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._client: Any = None
        self._status_client: Any = None
        self._sdk: Any = None
        self._group: uuid.UUID | None = None
        self._leaving = Exit()
        self._sending_since: float | None = None
        self._online = False
        self._total = 0
        self._heartbeat = _STATUS_AGE
        self._last_result = float("-inf")
        #: When its status last began to say "offline", and "online".
        self._offline_since = float("inf")
        self._online_since = float("-inf")
        #: Since when its status has said that nobody works there.
        self._idle_since: float | None = None

    # --- what a pool asks -----------------------------------------------------------------------------------------

    def connect(self, emit: Callable[[Payload], None]) -> None:
        """Before `start`: how to publish its heartbeats."""
        self._emit = emit

    def most_slots(self) -> int:
        """As configured; 1 if only the status shows it."""
        return self._slots or 1

    def why_dead(self) -> str | None:
        """Why it can never work again, or None."""
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        return f"its thread {dead[0]} has ended" if dead and not self._stop.is_set() else None

    def observe(self) -> Observation:
        """What its status and its results say."""
        now = time.monotonic()
        with self._lock:
            slots = (self._slots or max(1, self._total)) if self._seems_online(now) else 0
            silent = self._life.silent_since(now, slots) if slots else None
        sending = self._sending_since
        if silent is None and sending is not None and now - sending > _SUBMIT_DUE:
            silent = sending
        return Observation(slots, silent_since=silent)

    def _seems_online(self, now: float) -> bool:
        is_contradicted = self._last_result > self._offline_since + _UNDER_WAY
        return self._online or (is_contradicted and now - self._last_result < _RESULT_SPEAKS)

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the clients, and start the threads.

        Raises:
            Exception: whatever ``client_factory`` raises.
        """
        self._client = self._client_factory()
        self._status_client = self._client_factory()
        for name, work in (("send", self._send_all), ("look", self._look_after)):
            thread = threading.Thread(target=work, name=f"globus-{self.label}-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def shutdown(self) -> None:
        """End the threads and the SDK's; tasks at the endpoint go on there, and nobody waits for them."""
        self._stop.set()
        self._posts.close()
        self._retire()
        leave(self._client, self._leaving, _WATCHER_LIMIT)
        for thread in self._threads:
            thread.join(2.0)
        super().shutdown()

    def _retire(self) -> None:
        """The SDK Executor, if there is one, sends nothing more; what it waits for is still received."""
        sdk, self._sdk = self._sdk, None
        if sdk is not None:
            sdk.shutdown(wait=False, cancel_futures=True)

    # --- sending --------------------------------------------------------------------------------------------------

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Take a task, to be sent soon.

        Args:
            func: what to run.
            resource_specification: for the engine of the endpoint; ``user_endpoint_config`` in it for its template.
            args: of the function.
            kwargs: of the function.

        Raises:
            PayloadTooLargeError: the service would refuse it.
            Exception: the function or its arguments cannot be serialised. That is found here: inside the SDK it would
                end the thread that sends.
        """
        code = self._codes.of(func, self._code_of)
        size = len(code) + self._size(args, kwargs)
        if size > self._payload_limit:
            raise PayloadTooLargeError(
                f"The arguments are {size / 1e6:.1f} MB, and Globus Compute takes {self._payload_limit / 1e6:.1f} MB. "
                f"Pass a file or a ProxyStore proxy, or give the task to another endpoint with tags."
            )
        wishes = {key: value for key, value in resource_specification.items() if key != "priority"}
        config = wishes.pop("user_endpoint_config", self._user_endpoint_config)
        post = RemoteTask(func, code, args, kwargs, size, wishes or None, config)
        self._posts.put(post)
        return post.future

    def _code_of(self, function: Callable[..., Any]) -> str:
        return str(self._client.fx_serializer.serialize(adapter.catching(function)))

    def _size(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        values = (*args, *kwargs.values())
        if all(value is None or isinstance(value, bool | int | float) for value in values):
            return 64 * (1 + len(values))
        serialize = self._client.fx_serializer.serialize
        return len(serialize(args)) + len(serialize(kwargs))

    def _send_all(self) -> None:
        while not self._stop.is_set():
            batch = self._posts.take(_BATCH, int(self._payload_limit * _FILL), 0.5)
            if self._journal is not None:
                batch = [post for post in batch if not self._adopt(post, self._journal)]
            if batch and self._account.take(self._stop):
                self._sending_since = time.monotonic()
                try:
                    self._send(batch)
                except Exception as error:  # noqa: BLE001 - the futures of the batch get it
                    self._note(batch, error)
                else:
                    self._note(batch, None)
                self._sending_since = None

    def _send(self, batch: list[RemoteTask]) -> None:
        """Hand a batch over, and wait until the service has answered."""
        sdk = self._sdk
        if sdk is None:
            sdk = self._sdk = OwnGroupExecutor(
                self._endpoint_id, self._group, self._leaving, client=self._client, label=self.label,
                batch_size=_BATCH, api_burst_limit=8, api_burst_window_s=1,
            )  # fmt: skip
        functions = [self._function_id(post) for post in batch]
        for post, function in zip(batch, functions, strict=True):  # in one go, so that the SDK sends them in one
            sdk.resource_specification, sdk.user_endpoint_config = post.resources, post.config
            post.sent(sdk.submit_to_registered_function(function, post.args, post.kwargs))
        end = time.monotonic() + _SUBMIT_LIMIT
        # The SDK has no callback for the answer of the service: it gives the future its task id, or ends it.
        while not all(post.is_answered() for post in batch) and not self._stop.wait(_TURN):
            if time.monotonic() > end:
                raise TimeoutError(f"the service did not answer within {_SUBMIT_LIMIT:.0f} s")
        self._group = sdk.task_group_id or self._group

    def _adopt(self, post: RemoteTask, journal: Journal) -> bool:
        """If the process before this one sent it already, ask for what came of it instead of sending it."""
        if post.is_canary:
            return False
        serialize = self._client.fx_serializer.serialize
        post.digest = journal.digest(post.code, serialize(post.args), serialize(post.kwargs))
        post.adopted = journal.claim(post.digest)
        if post.adopted is None:
            return False
        self._posts.accepted(post, time.monotonic())
        self._posts.doubt(post)
        return True

    def _function_id(self, post: RemoteTask) -> str:
        """Return its id at the service. A wrapper made again for each call is registered once."""
        code = Journal.digest(post.code)
        known = self._registered.get(code)
        if known is None:
            if not self._account.take(self._stop):
                raise SubmitFailedError("the endpoint is being closed")
            self._sending_since = time.monotonic()  # until now it was not the service that was waited for
            known = str(self._client.register_function(adapter.catching(post.function)))
            while len(self._registered) >= _MOST_FUNCTIONS:
                del self._registered[next(iter(self._registered))]
            self._registered[code] = known
        return known

    def _note(self, batch: list[RemoteTask], error: BaseException | None) -> None:
        """What became of a batch: which tasks the service has, and which it has not."""
        accepted = [post for post in batch if post.task_id is not None]
        now = time.monotonic()
        for post in accepted:
            self._posts.accepted(post, now)
        if self._journal is not None and accepted:
            self._journal.sent((str(post.task_id), post.digest) for post in accepted if post.digest)
        with self._lock:
            self._life.accepted(now, sum(not post.is_canary for post in accepted))
        for post in accepted:  # only now: a callback of its end expects that it is registered
            post.inner.add_done_callback(functools.partial(self._came_back, post))
        refused = [post for post in batch if post.task_id is None]
        if not refused or self._stop.is_set():
            return
        # One failed submission ends an SDK Executor for good. Of its tasks some have the cause; the others were
        # cancelled when its thread ended.
        self._retire()
        causes = [why for post in refused if (why := post.why_ended()) is not None]
        cause = next((why for why in causes if not isinstance(why, CancelledError)), error or CancelledError())
        if getattr(cause, "http_status", None) == 429:  # noqa: PLR2004 - too many requests
            self._account.bar(_BARRED)
        logger.info("Endpoint %s: %d tasks could not be submitted: %s", self.label, len(refused), cause)
        for post in refused:
            failed = SubmitFailedError(f"Globus Compute did not take it: {type(cause).__name__}: {cause}")
            failed.__cause__ = cause
            self._posts.settle(post, error=failed)

    # --- what comes back ------------------------------------------------------------------------------------------

    def _came_back(self, post: RemoteTask, inner: Future[Any]) -> None:
        """A future of the SDK is done, on one of its threads."""
        if self._stop.is_set():
            return
        try:
            error = inner.exception()
        except CancelledError as cancelled:
            error = cancelled
        if error is None:
            self._returned(post, inner.result(), None)
        elif isinstance(error, TaskExecutionFailed):
            self._returned(post, None, error)
        else:  # the SDK gave up waiting; the service has not
            self._posts.doubt(post)
            logger.debug("Endpoint %s: the SDK gave up waiting for a result: %s", self.label, error)

    def _returned(self, post: RemoteTask, value: Any, error: BaseException | None) -> None:
        raised = adapter.raised_by_user(value)
        if raised is not None and not adapter.describe(post.function).is_app:
            value, error = None, raised  # who submits an app looks into its result
        if self._settle(post, value, error):
            now = time.monotonic()
            with self._lock:
                if post.is_canary:
                    self._life.canary_returned(now)
                elif post.adopted is None:
                    self._life.returned(now)
                self._last_result = now
                if not post.is_canary:
                    self._idle_since = None

    def _settle(self, post: RemoteTask, value: Any = None, error: BaseException | None = None) -> bool:
        task = post.task_id
        if self._journal is not None and post.digest and task is not None:
            self._journal.came_back(task)
        return self._posts.settle(post, value, error)

    # --- looking after what was sent --------------------------------------------------------------------------------

    def _look_after(self) -> None:
        """Until the end: ask for the status, and for results that should be there."""
        next_status = asked_at = 0.0
        in_vain = Backoff(self._status_period, self._status_period * 2**_MOST_DOUBLINGS)
        complaint: tuple[type[Exception], int | None] | None = None
        while not self._stop.is_set():
            now = time.monotonic()
            try:
                if now >= next_status and self._account.try_take():
                    next_status = now + self._status_period
                    self._ask_status()
                with self._lock:
                    is_late = self._life.wants_canary(now, self._slots or max(1, self._total))
                if max(self._last_result, self._online_since) > asked_at:
                    in_vain.reset()
                # An endpoint that is offline for a day needs no question every few seconds.
                due = asked_at + in_vain.delay
                if (is_late or self._posts.doubted()) and now >= due:
                    asked_at = now
                    if self._ask_for_results(everything=is_late):
                        in_vain.reset()
                    else:
                        in_vain.next()
                    if is_late and self._online:
                        self._send_canary()
            except Exception as error:  # noqa: BLE001 - a service that fails says nothing about the endpoint
                # A user who may not ask, or gave a wrong id, must not wait for tasks in the dark; once is enough.
                known, complaint = complaint, (type(error), getattr(error, "http_status", None))
                level = logging.WARNING if complaint != known else logging.INFO
                logger.log(level, "Endpoint %s: the service could not be asked: %s", self.label, error)
            self._stop.wait(min(1.0, self._status_period / 2))

    def _ask_status(self) -> None:
        answer = self._status_client.get_endpoint_status(self._endpoint_id)
        now = time.monotonic()
        details = answer.get("details") or {}
        online = answer.get("status") == "online"
        if self._online and not online:
            self._ask_for_results(everything=True)  # what it finished need not be run elsewhere
        total, idle = details.get("total_workers"), details.get("idle_workers")
        rests = online and bool(total) and total == idle and not details.get("pending_tasks")
        with self._lock:
            if online is not self._online:
                logger.info("Endpoint %s: its status is %r", self.label, answer.get("status"))
                if online:
                    self._online_since = now
                    self._life.forgiven(now)
                else:
                    self._offline_since = now
            self._online = online
            self._total = int(total or 0)
            self._heartbeat = float(details.get("heartbeat_period") or _STATUS_AGE)
            if rests:
                self._idle_since = self._idle_since or now
            elif not self._life.has_canary:
                self._idle_since = None
            alive = online and self._life.silent_since(now, self._slots or max(1, self._total)) is None
        if alive:
            beat = NodeHeartbeat(endpoint=self.label, site=self._site, node="globus", interval=self._status_period)
            self._emit(beat)
        self._give_up_lost(now)

    def _give_up_lost(self, now: float) -> None:
        """All its workers are idle, and yet there are tasks that did not come back: they are lost.

        A status is as old as the last heartbeat of the endpoint: only one that is certainly younger than the task
        counts. What it had before it went offline was lost with that.
        """
        with self._lock:
            since, back = self._idle_since, self._online_since
        if since is None or now - since < min(self._patience, 2 * self._status_period):
            return
        reported = now - self._heartbeat - self._patience
        lost = [
            post
            for post in self._posts.accepted_before(since)
            if post.accepted_at is not None and post.accepted_at < max(reported, back)
        ]
        if lost:
            self._ask_for_results(everything=True)
        for post in lost:
            self._give_up(post, f"the endpoint has been idle for {now - since:.0f} s, and the service has no result")

    def _give_up(self, post: RemoteTask, why: str) -> None:
        gone = AttemptLostError(f"Endpoint {self.label} lost the task: {why}.")
        if self._settle(post, error=gone) and not post.is_canary and post.adopted is None:
            with self._lock:
                self._life.forgotten(time.monotonic())

    def _ask_for_results(self, *, everything: bool) -> bool:
        """Ask the service what came of tasks: those whose results the SDK stopped waiting for, or all.

        Returns whether something came of any.
        """
        posts = self._posts.open() if everything else self._posts.doubted()
        if posts:
            logger.info("Endpoint %s: the service is asked what came of %d tasks", self.label, len(posts))
        known = {task: post for post in posts if (task := post.task_id) is not None}
        ids = list(known)
        for start in range(0, len(ids), _BATCH):
            if not self._account.take(self._stop):
                break
            asked = ids[start : start + _BATCH]
            results = what_became(self._status_client, asked)
            for task_id in asked:
                self._reported(known[task_id], results.get(task_id))
        return any(post.settled for post in posts)

    def _reported(self, post: RemoteTask, found: dict[str, Any] | None) -> None:
        """What the service says of a task; None: it does not know it."""
        is_expired = found is not None and found.get("status") == "success" and "result" not in found
        if post.adopted is not None and (found is None or is_expired):
            if self._journal is not None:
                self._journal.came_back(post.adopted)
            self._posts.again(post)
        elif is_expired:
            self._give_up(post, "the service does not keep its result any more")
        elif found is not None and found.get("completion_t"):
            self._found(post, found)

    def _found(self, post: RemoteTask, found: dict[str, Any]) -> None:
        if found.get("status") != "success":
            self._returned(post, None, TaskExecutionFailed(str(found.get("exception")), str(found["completion_t"])))
            return
        try:
            value = self._status_client.fx_serializer.deserialize(found["result"])
        except Exception as error:  # noqa: BLE001 - whatever the user's classes raise while they are built
            self._returned(post, None, error)
        else:
            self._returned(post, value, None)

    def _send_canary(self) -> None:
        """Send a task that does nothing, ahead of nobody: does anything come back?"""
        with self._lock:
            self._life.canary_sent(time.monotonic())
        code = self._codes.of(_canary, self._code_of)
        self._posts.put(RemoteTask(_canary, code, (), {}, 0, None, self._user_endpoint_config, is_canary=True))
