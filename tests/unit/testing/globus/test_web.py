from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl.testing.globus import LocalGlobusCompute

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus import EmulatedEndpoint
    from tests.unit.testing.globus.rest import Rest

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", f"/v2/functions/{NOBODY}", None, 404, "FUNCTION_NOT_FOUND"),
        ("DELETE", f"/v2/functions/{NOBODY}", None, 404, "FUNCTION_NOT_FOUND"),
        ("GET", f"/v2/endpoints/{NOBODY}", None, 404, "ENDPOINT_NOT_FOUND"),
        ("GET", f"/v2/endpoints/{NOBODY}/status", None, 404, "ENDPOINT_NOT_FOUND"),
        ("POST", f"/v3/endpoints/{NOBODY}/submit", {"tasks": {}}, 404, "ENDPOINT_NOT_FOUND"),
        ("GET", f"/v2/tasks/{NOBODY}", None, 404, "TASK_NOT_FOUND"),
        ("GET", f"/v2/taskgroup/{NOBODY}", None, 404, "TASK_GROUP_NOT_FOUND"),
        ("POST", "/v2/batch_status", {"task_ids": NOBODY}, 400, "REQUEST_MALFORMED"),
        ("POST", "/v3/functions", b"{", 400, "REQUEST_MALFORMED"),
        ("GET", "/v2/nothing", None, 404, "NOT_FOUND"),
        ("PUT", "/v2/version", {}, 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_errors_are_documents(rest: Rest, method: str, path: str, body: object, status: int, code: str) -> None:
    got, document = rest(method, path, body)
    assert got == status
    assert (document["status"], document["code"], document["http_status_code"]) == ("Failed", code, status)
    assert document["reason"]


def test_a_submission_is_taken_as_a_whole_or_not_at_all(rest: Rest, alpha: EmulatedEndpoint) -> None:
    function = rest.function(len)
    for wrong in ({"tasks": {function: ["x"], NOBODY: ["x"]}}, {"tasks": {function: ["x"]}, "task_group_id": NOBODY}):
        assert rest("POST", f"/v3/endpoints/{alpha.id}/submit", wrong)[0] == 404
    assert not any(rest.service.tasks.values())


def test_tasks_of_a_submission_come_back_in_order(rest: Rest, alpha: EmulatedEndpoint) -> None:
    first, group = rest.submit(alpha, len, "a")
    second, again = rest.submit(alpha, len, "bb", task_group_id=group)
    assert again == group
    reported = rest.get(f"/v2/taskgroup/{group}")
    assert reported == {"taskgroup_id": group, "tasks": [{"id": first}, {"id": second}]}
    assert [rest.result(first), rest.result(second)] == [1, 2]
    found = rest("POST", "/v2/batch_status", {"task_ids": [second, NOBODY, first]})[1]["results"]
    assert set(found) == {first, second}
    assert {task["status"] for task in found.values()} == {"success"}
    assert all(float(task["completion_t"]) <= time.time() for task in found.values())
    assert {str(result.task_id) for result in rest.collect(group, 2)} == {first, second}


def test_what_is_too_large_is_refused(make_rest: Callable[..., Rest]) -> None:
    with LocalGlobusCompute(payload_limit=5000, result_limit=1000) as service:
        rest, endpoint = make_rest(service), service.endpoint("alpha")
        status, document = rest.try_submit(endpoint, len, "x" * 6000)
        assert (status, document["code"]) == (413, "REQUEST_TOO_LARGE")
        task, _ = rest.submit(endpoint, bytes, 2000)
        assert "MaxResultSizeExceeded" in rest.done(task)["exception"]


def test_too_many_requests_are_refused_for_a_time(make_rest: Callable[..., Rest]) -> None:
    with LocalGlobusCompute(requests=(4, 60.0)) as service:
        rest = make_rest(service)
        assert [rest("GET", "/v2/version")[0] for _ in range(6)] == [200, 200, 200, 200, 429, 429]
        assert 50 <= int(rest.headers["Retry-After"]) <= 60
        assert service.requests_seen == {"GET /v2/version": 6}


def test_results_are_kept_for_so_long_only(make_rest: Callable[..., Rest]) -> None:
    with LocalGlobusCompute(results_kept=0.2) as service:
        rest = make_rest(service)
        task, group = rest.submit(service.endpoint("alpha"), len, "a")
        rest.until(lambda: "reason" in rest.task(task))
        reported = rest.task(task)
        assert reported["status"] == "success"
        assert "result" not in reported
        rest.until(lambda: service.results_waiting(group) == 0)
