from __future__ import annotations

import os
import re

import pytest
from parsl.serialize import deserialize, serialize

from diaspora_parsl.events.trace import Traces
from diaspora_parsl.executors.parsl import adapter
from diaspora_parsl.executors.worker import node_gate, trace_wrapper

PARENT = Traces("/host/pool/run").parent(17, 21)


def context(suffix: str, *, fail: bool = False) -> str:
    if fail:
        raise ValueError(os.environ["TRACEPARENT"])
    return os.environ["TRACEPARENT"] + suffix


def test_a_function_finds_its_context_while_it_runs_and_nobody_else_does() -> None:
    wrapped = deserialize(serialize(trace_wrapper.around(context)))
    assert wrapped(PARENT, "!") == f"{PARENT}!"
    with pytest.raises(ValueError, match=PARENT):
        wrapped(PARENT, "!", fail=True)
    assert "TRACEPARENT" not in os.environ


def test_it_goes_through_the_gate_and_keeps_its_name() -> None:
    guard = node_gate.around(trace_wrapper.around(context))
    report = node_gate.opened(guard(1, 0, "", PARENT, "!"))
    assert report is not None
    assert report.value == f"{PARENT}!"
    assert adapter.describe(trace_wrapper.around(context)).name == adapter.describe(context).name
    assert trace_wrapper.around(context) is trace_wrapper.around(context)


def test_a_trace_is_one_task_and_a_span_one_attempt() -> None:
    traces = Traces("/host/pool/run")
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", PARENT)
    assert PARENT[:35] == traces.parent(17)[:35] == traces.parent(17, 22)[:35]
    assert len({traces.parent(task, attempt) for task in range(1, 100) for attempt in range(3)}) == 297
    assert traces.trace_id(17) != Traces("/host/pool/another").trace_id(17)
    assert traces.trace_id(2**63 + 5) < 2**128
    assert traces.span_id() != 0
