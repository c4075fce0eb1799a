"""A fake Octopus on this host: its web service and login over real HTTP, with faults on request."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

_SCOPES: Final = {"openid": "auth.globus.org"}
_SERVICE: Final = "2b9d2f5c-fa32-45b5-875b-b24cd343b917"
_MOST_RECORDS: Final = 500

Reply = tuple[int, Any]


class _Log:
    """A topic with one partition."""

    def __init__(self) -> None:
        self.first = 0
        self.records: list[tuple[str | None, str | None]] = []

    @property
    def end(self) -> int:
        return self.first + len(self.records)

    def trim(self, before: int) -> None:
        del self.records[: max(before - self.first, 0)]
        self.first = max(before, self.first)


class _Instance:
    """A consumer instance of the web service: lost at a restart, unlike the offsets of its group."""

    def __init__(self, group: str, reset: str) -> None:
        self.group = group
        self.reset = reset
        self.positions: dict[str, int | None] = {}


class LocalOctopus:
    """Answers the requests of ``diaspora-event-sdk`` to the web service and to Globus Auth.

    Example:
        >>> with LocalOctopus() as octopus:  # doctest: +SKIP
        ...     for name, value in octopus.environment.items():
        ...         monkeypatch.setenv(name, value)
        ...     fabric = open_fabric(octopus.url)

    Args:
        brokers: Kafka address that it returns.
    """

    def __init__(self, brokers: str = "127.0.0.1:1") -> None:
        self.brokers = brokers
        self.keys = 0
        """Number of requested keys."""
        self.requests = 0
        self.account, self.secret = str(uuid.uuid4()), secrets.token_hex(16)
        self.namespace = f"ns-{self.account.replace('-', '')[-12:]}"
        self._tokens: set[str] = set()
        self._logs: dict[str, _Log] = {}
        self._instances: dict[str, _Instance] = {}
        self._committed: dict[tuple[str, str], int] = {}
        self._faults: list[int] = []
        self._changed = threading.Condition()
        self._answering = threading.Event()
        self._answering.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False  # closing waits for the threads
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="octopus")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._answering.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def service(self) -> str:
        """Base URL of the web service and of the login."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """URL of a fabric through the web service, with a short timeout."""
        return f"octopus+https://{self.namespace}?service={self.service}&timeout=2"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make the SDK log in here without interaction."""
        return {
            "DIASPORA_SDK_CLIENT_ID": self.account,
            "DIASPORA_SDK_CLIENT_SECRET": self.secret,
            "GLOBUS_SDK_SERVICE_URL_AUTH": self.service,
        }

    # --- faults ---------------------------------------------------------------------------------------------------

    def fail(self, *statuses: int) -> None:
        """Answer the next requests to the web service with these HTTP statuses."""
        self._faults += statuses

    def expire(self) -> None:
        """Invalidate all tokens."""
        self._tokens.clear()

    def restart(self) -> None:
        """Drop the consumer instances; records and committed offsets stay."""
        with self._changed:
            self._instances.clear()

    def trim(self, topic: str, before: int) -> None:
        """Drop the records of a topic before an offset."""
        self._logs[topic].trim(before)

    def write(self, topic: str, value: bytes) -> None:
        """Append a record without a request."""
        with self._changed:
            self._logs.setdefault(topic, _Log()).records.append((None, base64.b64encode(value).decode()))
            self._changed.notify_all()

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Accept requests without answering them while the block runs."""
        self._answering.clear()
        try:
            yield
        finally:
            self._answering.set()

    # --- the service ----------------------------------------------------------------------------------------------

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        octopus = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError):  # the client disconnected
                    self.close_connection = True

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                octopus._answering.wait(60)
                status, content = octopus._answer(self.command, self.path, self.headers, body)
                encoded = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            do_GET = do_POST = do_DELETE = _do  # noqa: N815 - names of the standard library

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _answer(self, method: str, target: str, headers: Any, body: bytes) -> Reply:  # noqa: PLR0911 - a rule each
        self.requests += 1
        parts = urlsplit(target)
        if parts.path == "/v2/oauth2/token":
            return self._token(headers, parse_qs(body.decode()))
        if self._faults and parts.path.startswith("/api/"):
            status = self._faults.pop(0)
            return _error(status, status * 100 + 1, "as asked for")
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self._tokens:
            return _error(401, 40101, "no valid token")
        if parts.path == "/v2/oauth2/userinfo":
            return 200, {"sub": self.account}
        if headers.get("Subject") != self.account:
            return _error(403, 40301, "not the subject of the token")
        path, content = [unquote(word) for word in parts.path.split("/")[2:]], json.loads(body or b"{}")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        with self._changed:
            if path[0] == "v3":
                return self._topics(path[1:], content)
            if len(path) == 3:  # noqa: PLR2004 - v2, consumers, group
                return self._create(path[2], content)
            return self._consume(method, path[2:], content, query)

    def _token(self, headers: Any, form: dict[str, list[str]]) -> Reply:
        given = base64.b64decode(headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if not secrets.compare_digest(given, f"{self.account}:{self.secret}"):
            return 401, {"error": "invalid_client"}
        token, scope = secrets.token_hex(16), form["scope"][0]
        self._tokens.add(token)
        server = _SCOPES.get(scope, _SERVICE)
        found = {"access_token": token, "scope": scope, "resource_server": server, "token_type": "Bearer"}
        return 200, {**found, "expires_in": 172_800, "other_tokens": []}

    def _topics(self, path: list[str], content: dict[str, Any]) -> Reply:  # noqa: PLR0911 - a rule each
        if path == ["key"]:
            self.keys += 1
            key = {"access_key": f"AKIA{self.keys:016}", "secret_key": secrets.token_hex(20)}
            return 200, {"status": "success", **key, "endpoint": self.brokers, "fresh": True}
        if path[0] != self.namespace:
            return _error(403, 40301, "not your namespace")
        if len(path) == 2:  # noqa: PLR2004 - namespace, topic
            self._logs.setdefault(path[1], _Log())
            return 200, {"status": "success", "topics": sorted(self._logs)}
        log = self._logs.get(path[2])
        if log is None:
            return _error(404, 40401, f"no topic {path[2]}")
        if len(content["entries"]) > _MOST_RECORDS:
            return _error(400, 40002, f"more than {_MOST_RECORDS} records")
        successes = []
        for entry in content["entries"]:
            key, value = entry.get("key", {}).get("data"), entry["value"]
            if value["type"] != "BINARY":
                return _error(400, 40003, "this fake accepts only bytes")
            log.records.append((key and base64.b64encode(key.encode()).decode(), value["data"]))
            successes.append({"id": entry["id"], "partition_id": 0, "offset": log.end - 1, "topic_name": path[2]})
        self._changed.notify_all()
        return 207, {"successes": successes, "failures": []}

    def _create(self, group: str, content: dict[str, Any]) -> Reply:
        name = secrets.token_hex(8)
        self._instances[name] = _Instance(group, content.get("auto.offset.reset", "latest"))
        return 200, {
            "instance_id": name, "base_uri": f"{self.service}/api/v2/consumers/{group}/instances/{name}"
        }  # fmt: skip

    def _consume(self, method: str, path: list[str], content: dict[str, Any], query: dict[str, str]) -> Reply:
        instance = self._instances.get(path[2])
        if instance is None or instance.group != path[0]:
            return _error(404, 40403, "Consumer instance not found.")
        route = "/".join(path[3:])
        if method == "DELETE" and not route:
            del self._instances[path[2]]
            return 204, None
        if route == "records":
            return self._records(instance, float(query.get("timeout", 5000)) / 1000)
        if route == "offsets" and method == "GET":
            wanted = [one["topic"] for one in content["partitions"]]
            found = {topic: self._committed.get((instance.group, topic)) for topic in wanted}
            return 200, {
                "offsets": [{"topic": t, "partition": 0, "offset": o} for t, o in found.items() if o is not None]
            }  # fmt: skip
        actions: dict[str, Callable[[], None]] = {
            "assignments": lambda: instance.positions.update((one["topic"], None) for one in content["partitions"]),
            "positions": lambda: instance.positions.update((o["topic"], o["offset"]) for o in content["offsets"]),
            # As in Kafka's own client, the next fetch determines the end.
            "positions/end": lambda: instance.positions.update((one["topic"], -1) for one in content["partitions"]),
            "offsets": lambda: self._commit(instance),
        }
        if route not in actions:
            return _error(404, 40400, f"{method} {route} is not here")
        actions[route]()
        return 204, None

    def _commit(self, instance: _Instance) -> None:
        for topic, position in instance.positions.items():
            if position is not None and position >= 0:
                self._committed[instance.group, topic] = position

    def _records(self, instance: _Instance, seconds: float) -> Reply:
        end = time.monotonic() + seconds
        while True:
            found: list[dict[str, Any]] = []
            for topic, position in instance.positions.items():
                log = self._logs.get(topic)
                if log is None:
                    continue
                start = self._start(instance, log, topic, position)
                batch = log.records[start - log.first :][:_MOST_RECORDS]
                instance.positions[topic] = start + len(batch)
                found += [
                    {"topic": topic, "key": key, "value": value, "partition": 0, "offset": start + n, "headers": []}
                    for n, (key, value) in enumerate(batch)
                ]
            remaining = end - time.monotonic()
            if found or remaining <= 0:
                return 200, found
            self._changed.wait(remaining)

    def _start(self, instance: _Instance, log: _Log, topic: str, position: int | None) -> int:
        if position is None:
            position = self._committed.get((instance.group, topic), log.first if instance.reset == "earliest" else -1)
        if position < 0:
            return log.end
        return position if log.first <= position <= log.end else log.first


def _error(status: int, code: int, message: str) -> Reply:
    return status, {"error_code": code, "message": message}
