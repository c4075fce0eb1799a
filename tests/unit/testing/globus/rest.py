"""Plain requests to a local service: the SDK waits and tries again, these do not."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pika
from globus_compute_common.messagepack import unpack
from globus_compute_common.messagepack.message_types import Result
from globus_compute_sdk.serialize import ComputeSerializer

from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute

LIMIT = 30.0


class Rest:
    """Speaks to the service as the SDK does, but never twice."""

    def __init__(self, service: LocalGlobusCompute) -> None:
        self.service = service
        self.headers: dict[str, str] = {}
        self.functions: dict[Callable[..., Any], str] = {}
        self.serializer = ComputeSerializer()

    def __call__(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.service.url + path, data, method=method)  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:  # noqa: S310 - our own
                status, raw, self.headers = answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                status, raw, self.headers = error.code, error.read(), dict(error.headers)
        return status, json.loads(raw)

    def get(self, path: str) -> Any:
        status, document = self("GET", path)
        assert status == 200, document
        return document

    @staticmethod
    def until(holds: Callable[[], object], limit: float = LIMIT) -> None:
        end = time.monotonic() + limit
        while not holds():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    def function(self, function: Callable[..., Any]) -> str:
        if function not in self.functions:
            code = self.serializer.pack_buffers([self.serializer.serialize(function)])
            body = {"function_name": function.__name__, "function_code": code, "serialized": True}
            self.functions[function] = self("POST", "/v3/functions", body)[1]["function_uuid"]
        return self.functions[function]

    def try_submit(
        self, endpoint: EmulatedEndpoint, function: Callable[..., Any], *args: object, **options: object
    ) -> tuple[int, Any]:
        payload = self.serializer.pack_buffers([self.serializer.serialize(args), self.serializer.serialize({})])
        body = {"tasks": {self.function(function): [payload]}, "create_queue": True, **options}
        return self("POST", f"/v3/endpoints/{endpoint.id}/submit", body)

    def submit(
        self, endpoint: EmulatedEndpoint, function: Callable[..., Any], *args: object, **options: object
    ) -> tuple[str, str]:
        """Returns the ids of the task and of its group."""
        status, document = self.try_submit(endpoint, function, *args, **options)
        assert status == 200, document
        return document["tasks"][self.function(function)][0], document["task_group_id"]

    def task(self, name: str) -> Any:
        return self.get(f"/v2/tasks/{name}")

    def done(self, name: str) -> Any:
        """The task, when it is done."""
        self.until(lambda: self.task(name)["status"] in {"success", "failed"})
        return self.task(name)

    def result(self, name: str) -> Any:
        return self.serializer.deserialize(self.done(name)["result"])

    def collect(self, group: str, count: int, *, acknowledge: bool = True) -> list[Result]:
        """So many results from the queue of the group."""
        answer = self.get("/v2/get_amqp_result_connection_url")
        with pika.BlockingConnection(pika.URLParameters(answer["connection_url"])) as connection:
            channel = connection.channel()
            found: list[Result] = []
            for method, _, body in channel.consume(answer["queue_prefix"] + group, inactivity_timeout=LIMIT):
                assert method is not None, f"{len(found)} of {count} results came"
                result = unpack(body)
                assert isinstance(result, Result)
                found.append(result)
                if acknowledge:
                    channel.basic_ack(method.delivery_tag)
                if len(found) == count:
                    break
            return found
