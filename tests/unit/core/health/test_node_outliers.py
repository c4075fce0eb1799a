from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.core.health import node_outliers
from diaspora_parsl.core.health.node_outliers import NodeOutlierDetector

FOUR = [(f"m{number}", str(number)) for number in range(4)]
NAMES = [f"h{number} {number} m{number}" for number in range(4)]


def four_nodes(*, more: bool = False) -> NodeOutlierDetector:
    detector = NodeOutlierDetector(["alpha"])
    detector.connected("alpha", FOUR, 0.0, more=more)
    return detector


def proven(
    detector: NodeOutlierDetector, name: str, task: int, at: float, function: str = "f"
) -> list[node_outliers.Change]:
    """Let a task fail on the node and succeed elsewhere."""
    changes = detector.failed("alpha", name, function, task, task, at, awaited=True)
    changes += detector.proven("alpha", name, function, task, at)
    detector.closed("alpha", name, function, task)
    return changes


def test_while_a_second_opinion_is_awaited_a_new_function_gets_nothing_more_there() -> None:
    detector = four_nodes()
    assert detector.avoid("alpha", "f", 0.0) == ()
    detector.failed("alpha", NAMES[0], "f", 1, 17, 0.0, awaited=True)
    assert detector.known("alpha") == 17
    assert set(detector.avoid("alpha", "f", 0.0)) == {"h0", "m0"}
    assert detector.avoid("alpha", "g", 0.0) == ()
    detector.closed("alpha", NAMES[0], "f", 1)
    assert detector.avoid("alpha", "f", 0.0) == (), "it failed elsewhere too: nothing against the node"


def test_one_proven_failure_keeps_a_function_from_a_node_where_it_never_worked() -> None:
    detector = four_nodes()
    (change,) = proven(detector, NAMES[0], 1, 0.0)
    assert (change.ejected, change.function, change.node.host) == (True, "f", "h0")
    assert set(detector.avoid("alpha", "f", node_outliers.FUNCTION_PAUSE - 0.1)) == {"h0", "m0"}
    assert detector.avoid("alpha", "g", 0.0) == ()


def test_where_it_has_worked_three_in_a_row_are_needed() -> None:
    detector = four_nodes()
    detector.node_succeeded("alpha", NAMES[0], "f")
    assert proven(detector, NAMES[0], 1, 0.0) == []
    assert proven(detector, NAMES[0], 2, 0.0) == []
    detector.node_succeeded("alpha", NAMES[0], "f")
    assert proven(detector, NAMES[0], 3, 0.0) == []
    assert proven(detector, NAMES[0], 4, 0.0) == []
    assert [change.function for change in proven(detector, NAMES[0], 5, 0.0)] == ["f", ""]


def test_one_task_counts_once() -> None:
    detector = four_nodes()
    detector.node_succeeded("alpha", NAMES[0], "f")
    for _ in range(10):
        assert proven(detector, NAMES[0], 1, 0.0) == []


def test_a_probe_at_a_time_and_a_longer_pause_each_time_it_fails() -> None:
    detector = four_nodes()
    proven(detector, NAMES[0], 1, 0.0)
    at = node_outliers.FUNCTION_PAUSE
    assert detector.avoid("alpha", "f", at) == (), "the probe"
    assert detector.avoid("alpha", "f", at) != ()
    detector.failed("alpha", NAMES[0], "f", 2, 2, at + 0.1, awaited=True)
    detector.closed("alpha", NAMES[0], "f", 2)
    assert detector.avoid("alpha", "f", at + 0.1 + 2 * node_outliers.FUNCTION_PAUSE - 0.1) != ()
    assert detector.avoid("alpha", "f", at + 0.1 + 2 * node_outliers.FUNCTION_PAUSE) == (), "the next probe"
    (change,) = detector.node_succeeded("alpha", NAMES[0], "f")
    assert (change.ejected, change.function) == (False, "f")
    assert detector.avoid("alpha", "f", at + 30.0) == ()


def test_different_functions_that_fail_there_and_succeed_elsewhere_put_the_node_out() -> None:
    detector = four_nodes()
    changes = [change for number, name in enumerate("fgh") for change in proven(detector, NAMES[0], number, 0.0, name)]
    assert [change.function for change in changes] == ["f", "g", "h", ""]
    assert [node.host for node in detector.ejected("alpha")] == ["h0"]
    assert set(detector.avoid("alpha", "another", 0.0)) == {"h0", "m0"}
    detector.node_succeeded("alpha", NAMES[0], "another")
    assert detector.ejected("alpha") == []


def test_a_node_that_comes_and_goes_is_an_outlier_by_its_success_rate() -> None:
    detector = four_nodes()
    changes = []
    for task in range(100):
        for name in NAMES[1:]:
            detector.node_succeeded("alpha", name, "f")
        if task % 2:
            detector.node_succeeded("alpha", NAMES[0], "f")
        else:
            changes += proven(detector, NAMES[0], task, 0.0)
    out = [change for change in changes if change.ejected and not change.function]
    assert out[0].node.host == "h0"
    assert "100% on its 3 peers" in out[0].reason


def test_failures_without_a_second_run_count_if_others_run_the_function_well() -> None:
    detector = four_nodes()
    for task in range(5):
        assert detector.failed("alpha", NAMES[0], "f", task, task, 0.0, awaited=False) == []
    detector.node_succeeded("alpha", NAMES[1], "f")
    (change,) = detector.failed("alpha", NAMES[0], "f", 6, 6, 0.0, awaited=False)
    assert change.node.host == "h0"


def test_at_most_half_of_the_nodes_are_ejected() -> None:
    detector = four_nodes()
    for name in NAMES:
        proven(detector, name, 1, 0.0)
    assert set(detector.avoid("alpha", "f", 0.0)) == {"h0", "m0", "h1", "m1"}
    lonely = NodeOutlierDetector(["alpha"])
    lonely.connected("alpha", FOUR[:1], 0.0, more=False)
    proven(lonely, NAMES[0], 1, 0.0)
    assert lonely.avoid("alpha", "f", 0.0) == (), "a bad place is better than none"


def test_a_host_stays_out_when_another_manager_takes_over() -> None:
    detector = four_nodes()
    for number, function in enumerate("fgh"):
        proven(detector, NAMES[0], number, 0.0, function)
    detector.connected("alpha", FOUR[1:], 1.0, more=True)
    assert "h0" in detector.avoid("alpha", "f", 1.0)
    detector.connected("alpha", [*FOUR[1:], ("m9", "9")], 2.0, more=False)
    node = detector.node("alpha", "h0 9 m9")
    assert node.inherited
    assert set(detector.avoid("alpha", "f", 2.0)) == {"h0", "m9"}


def test_of_several_managers_on_one_host_only_the_bad_one_is_avoided() -> None:
    detector = four_nodes()
    for number in (1, 2, 3):
        detector.node_succeeded("alpha", f"h {number} m{number}", "f")
    proven(detector, "h 0 m0", 1, 0.0)
    assert detector.avoid("alpha", "f", 0.0) == ("m0",)
    detector.connected("alpha", [*FOUR[1:], ("m9", "9")], 1.0, more=False)
    detector.node_succeeded("alpha", "h 9 m9", "f")
    assert detector.avoid("alpha", "f", 1.0) == (), "it is gone, and the host is not to blame"


def test_a_node_that_disconnected_long_ago_is_dropped() -> None:
    detector = four_nodes()
    proven(detector, NAMES[0], 1, 0.0)
    detector.connected("alpha", FOUR[1:], 1.0, more=False)
    assert detector.find("alpha", NAMES[0]) is not None
    detector.connected("alpha", FOUR[1:], 2.0 + node_outliers.LONGEST_PAUSE, more=False)
    assert detector.find("alpha", NAMES[0]) is None
    assert detector.avoid("alpha", "f", 1000.0) == ()


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(NAMES), st.sampled_from("fg"), st.integers(1, 6),
            st.sampled_from(["succeeded", "alone", "awaited", "proven", "closed"]), st.floats(0.0, 40.0),
        ),
        max_size=60,
    ),
    count=st.integers(1, 4),
)  # fmt: skip
def test_half_of_the_nodes_always_stay_in(steps: list[tuple[str, str, int, str, float]], count: int) -> None:
    detector = NodeOutlierDetector(["alpha"])
    detector.connected("alpha", FOUR[:count], 0.0, more=False)
    at, attempt, awaited = 0.0, 0, set[tuple[str, str, int]]()
    for name, function, task, what, passed in steps:
        if NAMES.index(name) >= count:
            continue
        at += passed
        attempt += 1
        key = (name, function, task)
        if what == "succeeded":
            detector.node_succeeded("alpha", name, function)
        elif what in {"alone", "awaited"}:
            detector.failed("alpha", name, function, task, attempt, at, awaited=what == "awaited")
            awaited.add(key)
        elif what == "proven" and key in awaited:
            detector.proven("alpha", name, function, task, at)
        else:
            detector.closed("alpha", name, function, task)
        for asked in "fgh":
            avoided = {one for one in detector.avoid("alpha", asked, at) if one.startswith("m")}
            assert 2 * len(avoided) <= count
            assert detector.has_other("alpha", avoided)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 9)), max_size=40))
def test_tasks_that_fail_everywhere_eject_no_node(fails: list[tuple[str, int]]) -> None:
    """Bad inputs and bad functions: every pending second opinion ends without evidence."""
    detector = four_nodes()
    for number, (name, task) in enumerate(fails):
        assert not detector.failed("alpha", name, "f", task, number + 1, 0.0, awaited=True)
        detector.closed("alpha", name, "f", task)
    assert detector.avoid("alpha", "f", 0.0) == ()
    assert detector.ejected("alpha") == []
