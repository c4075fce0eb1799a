"""The part of the REST interface that the SDK uses."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware
from msgspec import Struct

from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.globus.core import QUEUE_PREFIX, Core, Submission, read
from diaspora_parsl.testing.globus.endpoint import AwaitedFaults, Endpoint
from diaspora_parsl.testing.globus.ledger import Task, UnknownError

logger = logging.getLogger(__name__)

#: Versions that every client accepts.
_VERSION: Final = {"api": "1.60.0", "min_sdk_version": "2.0.0", "min_ep_version": "2.0.0"}
_TOO_MANY: Final = 429
#: Error codes of the real service for HTTP statuses.
_CODES: Final = {
    400: "REQUEST_MALFORMED",
    401: "USER_UNAUTHENTICATED",
    403: "ENDPOINT_ACCESS_FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "REQUEST_TOO_LARGE",
    _TOO_MANY: "TOO_MANY_REQUESTS",
    500: "INTERNAL_ERROR",
    502: "BAD_GATEWAY",
    503: "SERVICE_UNAVAILABLE",
    504: "GATEWAY_TIMEOUT",
}

T = TypeVar("T")
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Query(Struct):
    """Body of a request for several tasks."""

    task_ids: list[str]


class _Function(Struct):
    """Required fields of a function; other fields are stored unchanged."""

    function_code: str
    function_name: str


def application(core: Core, payload_limit: int) -> web.Application:
    """Build the web application of the service.

    Args:
        core: State of the service.
        payload_limit: Largest request body in bytes.
    """
    app = web.Application(client_max_size=payload_limit, middlewares=[_middleware(core)])
    _Routes(core).add_to(app.router)
    return app


def error(status: int, reason: str, code: str | None = None, headers: dict[str, str] | None = None) -> web.Response:
    """Build an error response as the real service does.

    Args:
        status: HTTP status.
        reason: Text for people.
        code: Code for programs; None: the usual code of the status.
        headers: Headers of the response.
    """
    document = {
        "status": "Failed",
        "code": code or _CODES.get(status, "UNKNOWN_ERROR"),
        "error_args": [],
        "reason": reason,
        "http_status_code": status,
    }
    return _json(document, status=status, headers=headers)


def _json(document: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document), status=status, headers=headers, content_type="application/json"
    )


async def _refused(faults: AwaitedFaults, *, everything: bool) -> web.Response | None:
    """Return the response of an active `Refuse` after its delay, or None."""
    found = [fault for fault in faults.of(f.Refuse) if (fault.endpoint is None) == everything]
    if not found:
        return None
    fault = found[-1]
    if fault.delay > 0.0:
        await faults.over(fault, fault.delay)
    headers = {"Retry-After": "1"} if fault.status == _TOO_MANY else None
    return error(fault.status, "refused by a fault script", headers=headers)


def _middleware(core: Core) -> Middleware:
    """Return the middleware that counts, refuses and limits requests, and turns errors into responses."""

    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        core.seen[f"{request.method} {resource.canonical if resource else request.path}"] += 1
        refusal = await _refused(core.faults, everything=True)
        if refusal is not None:
            return refusal
        pause = core.throttle.wait(time.monotonic()) if core.throttle else 0
        if pause:
            return error(_TOO_MANY, f"too many requests; try again in {pause} s", headers={"Retry-After": str(pause)})
        try:
            return await handler(request)
        except Exception as failure:  # noqa: BLE001 - every error becomes a response
            return _failed(failure)

    return handle


def _failed(failure: Exception) -> web.Response:
    match failure:
        case UnknownError():
            reason = f"{failure.what} {failure.name} could not be resolved"
            return error(404, reason, f"{failure.what.upper()}_NOT_FOUND")
        case msgspec.DecodeError():
            return error(400, f"the request is malformed: {failure}")
        case web.HTTPException():
            return error(failure.status, failure.text or failure.reason)
        case _:
            logger.error("The service failed", exc_info=failure)
            return error(500, repr(failure))


class _Routes:
    """The handlers of all routes."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/v2/version", self.version)
        router.add_get("/v2/get_amqp_result_connection_url", self.results_url)
        for version in ("v2", "v3"):
            router.add_post(f"/{version}/functions", self.register_function)
        router.add_get("/v2/functions/{function}", self.get_function)
        router.add_delete("/v2/functions/{function}", self.delete_function)
        router.add_get("/v2/endpoints", self.list_endpoints)
        router.add_get("/v2/endpoints/{endpoint}", self.get_endpoint)
        router.add_get("/v2/endpoints/{endpoint}/status", self.get_status)
        router.add_get("/v3/endpoints/{endpoint}/allowed_functions", self.allowed_functions)
        router.add_post("/v3/endpoints/{endpoint}/submit", self.submit)
        router.add_get("/v2/tasks/{task}", self.get_task)
        router.add_post("/v2/batch_status", self.get_tasks)
        router.add_get("/v2/taskgroup/{group}", self.get_group)

    async def version(self, _: web.Request) -> web.Response:
        return _json(_VERSION)

    async def results_url(self, _: web.Request) -> web.Response:
        return _json({"queue_prefix": QUEUE_PREFIX, "connection_url": self._core.broker.url})

    # --- functions ------------------------------------------------------------------------------------------------

    async def register_function(self, request: web.Request) -> web.Response:
        body = await request.read()
        msgspec.json.decode(body, type=_Function)
        return _json({"function_uuid": self._core.ledger.register(msgspec.json.decode(body))})

    async def get_function(self, request: web.Request) -> web.Response:
        name = request.match_info["function"]
        return _json({"function_uuid": name, **self._core.ledger.function(name)})

    async def delete_function(self, request: web.Request) -> web.Response:
        name = request.match_info["function"]
        self._core.ledger.delete_function(name)
        return _json({"function_uuid": name})

    # --- endpoints ------------------------------------------------------------------------------------------------

    async def list_endpoints(self, _: web.Request) -> web.Response:
        return _json([_described(endpoint) for endpoint in self._core.endpoints.values()])

    async def get_endpoint(self, request: web.Request) -> web.Response:
        return _json(_described(self._endpoint(request)))

    async def get_status(self, request: web.Request) -> web.Response:
        endpoint = self._endpoint(request)
        await endpoint.answering()
        return _json(endpoint.status())

    async def allowed_functions(self, request: web.Request) -> web.Response:
        return _json({"endpoint_id": self._endpoint(request).name, "restricted": False, "functions": []})

    async def submit(self, request: web.Request) -> web.Response:
        endpoint = self._endpoint(request)
        refusal = await _refused(endpoint.faults, everything=False)
        if refusal is not None:
            return refusal
        submission = await _body(request, Submission)
        answer = self._core.submit(endpoint, submission)
        return _json({"request_id": str(uuid.uuid4()), "endpoint_id": endpoint.name, **answer})

    def _endpoint(self, request: web.Request) -> Endpoint:
        return self._core.endpoint(request.match_info["endpoint"])

    # --- tasks ----------------------------------------------------------------------------------------------------

    async def get_task(self, request: web.Request) -> web.Response:
        return _json(_task_document(self._core.ledger.task(request.match_info["task"])))

    async def get_tasks(self, request: web.Request) -> web.Response:
        known = {}
        for name in (await _body(request, _Query)).task_ids:
            with contextlib.suppress(UnknownError):  # the real service omits it
                known[name] = _task_document(self._core.ledger.task(name))
        return _json({"response": "batch", "results": known})

    async def get_group(self, request: web.Request) -> web.Response:
        name = request.match_info["group"]
        return _json({"taskgroup_id": name, "tasks": [{"id": task} for task in self._core.ledger.group(name)]})


async def _body(request: web.Request, kind: type[T]) -> T:
    return msgspec.json.decode(await request.read(), type=kind)


def _described(endpoint: Endpoint) -> dict[str, Any]:
    label = endpoint.engine.setup.label
    return {"uuid": endpoint.name, "name": label, "display_name": label, "multi_user": False, "public": False}


def _task_document(task: Task) -> dict[str, Any]:
    """Return the document of a task; an expired result leaves only the completion time."""
    document: dict[str, Any] = {"task_id": task.id, "status": task.state.value, "details": None}
    if task.done is not None:
        document["completion_t"] = str(task.done)
        if task.result is None:
            document["reason"] = "the result has expired"
        else:
            outcome = read(task.result)
            document["details"] = outcome.details
            document["exception" if outcome.error_details else "result"] = outcome.data
    return document
