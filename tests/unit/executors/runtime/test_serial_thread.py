from __future__ import annotations

import gc
import threading
import weakref

import pytest

from diaspora_parsl.executors.runtime.serial_thread import SerialThread

PATIENCE = 10.0


def test_calls_are_done_in_order_and_errors_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    serial_thread = SerialThread("test-lane")
    seen: list[int] = []

    def fail() -> None:
        raise ValueError("broken")

    for number in range(100):
        serial_thread.do(lambda number=number: seen.append(number))  # type: ignore[misc]
        if number == 50:
            serial_thread.do(fail)
    serial_thread.close()
    assert serial_thread.join(PATIENCE)
    assert seen == list(range(100))
    assert "A call of test-lane failed" in caplog.text


def test_a_call_that_hangs_holds_up_its_own_lane_only() -> None:
    stuck, other = SerialThread("test-stuck"), SerialThread("test-other")
    release, done = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(PATIENCE)

    stuck.do(hang)
    other.do(done.set)
    assert done.wait(PATIENCE)
    stuck.close()
    other.close()
    assert other.join(PATIENCE)
    assert not stuck.join(0.05)
    release.set()
    assert stuck.join(PATIENCE)


def test_an_idle_lane_keeps_nothing_alive() -> None:
    class Big:
        def __call__(self) -> None:
            done.set()

    done, after = threading.Event(), threading.Event()
    serial_thread = SerialThread("test-lane")
    call = Big()
    reference = weakref.ref(call)
    serial_thread.do(call)
    assert done.wait(PATIENCE)
    del call
    serial_thread.do(after.set)
    assert after.wait(PATIENCE)
    gc.collect()
    assert reference() is None
    serial_thread.close()
    assert serial_thread.join(PATIENCE)
