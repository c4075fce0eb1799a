"""Tasks on their way to a service: what is sent together, and that each ends once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

from diaspora_parsl.executors.globus.remote_tasks import RemoteTask, RemoteTasks


def post(size: int = 1, resources: dict[str, Any] | None = None) -> RemoteTask:
    return RemoteTask(max, "code", (1, 2), {}, size, resources, None)


def test_a_batch_has_the_same_wishes_and_fits() -> None:
    posts = RemoteTasks()
    big, wishes = [post(6), post(6)], {"nodes": 2}
    given = [post(), post(), *big, post(100), post(1, wishes), post(1, wishes)]
    for one in given:
        posts.put(one)
    batches = []
    while batch := posts.take(3, 10, 0.0):
        batches.append(batch)
    assert [one for batch in batches for one in batch] == given
    assert [len(batch) for batch in batches] == [3, 1, 1, 2]


def test_it_waits_for_the_first_and_no_longer_than_it_may() -> None:
    posts, one = RemoteTasks(), post()
    began = time.monotonic()
    assert posts.take(3, 10, 0.05) == []
    assert time.monotonic() - began >= 0.05
    later = threading.Timer(0.05, posts.put, [one])
    later.start()
    assert posts.take(3, 10, 30.0) == [one]
    later.join()


def test_each_ends_once() -> None:
    posts, one = RemoteTasks(), post()
    posts.accepted(one, 1.0)
    posts.doubt(one)
    assert posts.open() == posts.doubted() == posts.accepted_before(1.5) == [one]
    assert posts.accepted_before(1.0) == []
    assert posts.settle(one, 5)
    assert not posts.settle(one, 6)
    assert not posts.settle(one, error=ValueError())
    assert one.future.result(0) == 5
    assert posts.open() == posts.doubted() == []
    posts.doubt(one)
    assert posts.doubted() == []


def test_what_was_adopted_in_vain_is_sent_as_it_was() -> None:
    posts, one = RemoteTasks(), post()
    one.adopted = "id"
    posts.accepted(one, 1.0)
    posts.doubt(one)
    posts.again(one)
    assert posts.take(3, 10, 0.0) == [one]
    assert (one.args, one.task_id, posts.open()) == ((1, 2), None, [])
    inner: Future[int] = Future()
    one.sent(inner)
    assert not one.is_answered()
    inner.cancel()
    assert one.is_answered()
    assert one.why_ended() is not None


def test_a_closed_one_takes_nothing_and_wakes_who_waits() -> None:
    posts = RemoteTasks()
    later = threading.Timer(0.05, posts.close)
    later.start()
    assert posts.take(3, 10, 30.0) == []
    later.join()
    posts.put(post())
    assert posts.take(3, 10, 0.0) == []
