from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.core.health import node_outliers
from diaspora_parsl.core.health.node_outliers import NodeOutlierDetector

FOUR = [(f"m{number}", str(number)) for number in range(4)]
NAMES = [f"h{number} {number} m{number}" for number in range(4)]


def book_of_four(*, more: bool = False) -> NodeOutlierDetector:
    book = NodeOutlierDetector(["alpha"])
    book.connected("alpha", FOUR, 0.0, more=more)
    return book


def proven(
    book: NodeOutlierDetector, name: str, task: int, at: float, function: str = "f"
) -> list[node_outliers.Change]:
    """A task fails there, and succeeds elsewhere."""
    changes = book.failed("alpha", name, function, task, task, at, awaited=True)
    changes += book.proven("alpha", name, function, task, at)
    book.closed("alpha", name, function, task)
    return changes


def test_while_a_second_opinion_is_awaited_a_new_function_gets_nothing_more_there() -> None:
    book = book_of_four()
    assert book.avoid("alpha", "f", 0.0) == ()
    book.failed("alpha", NAMES[0], "f", 1, 17, 0.0, awaited=True)
    assert book.known("alpha") == 17
    assert set(book.avoid("alpha", "f", 0.0)) == {"h0", "m0"}
    assert book.avoid("alpha", "g", 0.0) == ()
    book.closed("alpha", NAMES[0], "f", 1)
    assert book.avoid("alpha", "f", 0.0) == (), "it failed elsewhere too: nothing against the node"


def test_one_proven_failure_keeps_a_function_from_a_node_where_it_never_worked() -> None:
    book = book_of_four()
    (change,) = proven(book, NAMES[0], 1, 0.0)
    assert (change.out, change.function, change.node.host) == (True, "f", "h0")
    assert set(book.avoid("alpha", "f", node_outliers.FUNCTION_PAUSE - 0.1)) == {"h0", "m0"}
    assert book.avoid("alpha", "g", 0.0) == ()


def test_where_it_has_worked_three_in_a_row_are_needed() -> None:
    book = book_of_four()
    book.node_succeeded("alpha", NAMES[0], "f")
    assert proven(book, NAMES[0], 1, 0.0) == []
    assert proven(book, NAMES[0], 2, 0.0) == []
    book.node_succeeded("alpha", NAMES[0], "f")
    assert proven(book, NAMES[0], 3, 0.0) == []
    assert proven(book, NAMES[0], 4, 0.0) == []
    assert [change.function for change in proven(book, NAMES[0], 5, 0.0)] == ["f", ""]


def test_one_task_counts_once() -> None:
    book = book_of_four()
    book.node_succeeded("alpha", NAMES[0], "f")
    for _ in range(10):
        assert proven(book, NAMES[0], 1, 0.0) == []


def test_a_probe_at_a_time_and_a_longer_pause_each_time_it_fails() -> None:
    book = book_of_four()
    proven(book, NAMES[0], 1, 0.0)
    at = node_outliers.FUNCTION_PAUSE
    assert book.avoid("alpha", "f", at) == (), "the probe"
    assert book.avoid("alpha", "f", at) != ()
    book.failed("alpha", NAMES[0], "f", 2, 2, at + 0.1, awaited=True)
    book.closed("alpha", NAMES[0], "f", 2)
    assert book.avoid("alpha", "f", at + 0.1 + 2 * node_outliers.FUNCTION_PAUSE - 0.1) != ()
    assert book.avoid("alpha", "f", at + 0.1 + 2 * node_outliers.FUNCTION_PAUSE) == (), "the next probe"
    (change,) = book.node_succeeded("alpha", NAMES[0], "f")
    assert (change.out, change.function) == (False, "f")
    assert book.avoid("alpha", "f", at + 30.0) == ()


def test_different_functions_that_fail_there_and_succeed_elsewhere_put_the_node_out() -> None:
    book = book_of_four()
    changes = [change for number, name in enumerate("fgh") for change in proven(book, NAMES[0], number, 0.0, name)]
    assert [change.function for change in changes] == ["f", "g", "h", ""]
    assert [node.host for node in book.out("alpha")] == ["h0"]
    assert set(book.avoid("alpha", "another", 0.0)) == {"h0", "m0"}
    book.node_succeeded("alpha", NAMES[0], "another")
    assert book.out("alpha") == []


def test_a_node_that_comes_and_goes_is_an_outlier_by_its_success_rate() -> None:
    book = book_of_four()
    changes = []
    for task in range(100):
        for name in NAMES[1:]:
            book.node_succeeded("alpha", name, "f")
        if task % 2:
            book.node_succeeded("alpha", NAMES[0], "f")
        else:
            changes += proven(book, NAMES[0], task, 0.0)
    out = [change for change in changes if change.out and not change.function]
    assert out[0].node.host == "h0"
    assert "100% on its 3 peers" in out[0].reason


def test_failures_without_a_second_run_count_if_others_run_the_function_well() -> None:
    book = book_of_four()
    for task in range(5):
        assert book.failed("alpha", NAMES[0], "f", task, task, 0.0, awaited=False) == []
    book.node_succeeded("alpha", NAMES[1], "f")
    (change,) = book.failed("alpha", NAMES[0], "f", 6, 6, 0.0, awaited=False)
    assert change.node.host == "h0"


def test_at_most_half_of_the_nodes_are_left_out() -> None:
    book = book_of_four()
    for name in NAMES:
        proven(book, name, 1, 0.0)
    assert set(book.avoid("alpha", "f", 0.0)) == {"h0", "m0", "h1", "m1"}
    lonely = NodeOutlierDetector(["alpha"])
    lonely.connected("alpha", FOUR[:1], 0.0, more=False)
    proven(lonely, NAMES[0], 1, 0.0)
    assert lonely.avoid("alpha", "f", 0.0) == (), "a bad place is better than none"


def test_a_host_stays_out_when_another_manager_takes_over() -> None:
    book = book_of_four()
    for number, function in enumerate("fgh"):
        proven(book, NAMES[0], number, 0.0, function)
    book.connected("alpha", FOUR[1:], 1.0, more=True)
    assert "h0" in book.avoid("alpha", "f", 1.0)
    book.connected("alpha", [*FOUR[1:], ("m9", "9")], 2.0, more=False)
    node = book.node("alpha", "h0 9 m9")
    assert node.inherited
    assert set(book.avoid("alpha", "f", 2.0)) == {"h0", "m9"}


def test_of_several_managers_on_one_host_only_the_bad_one_is_avoided() -> None:
    book = book_of_four()
    for number in (1, 2, 3):
        book.node_succeeded("alpha", f"h {number} m{number}", "f")
    proven(book, "h 0 m0", 1, 0.0)
    assert book.avoid("alpha", "f", 0.0) == ("m0",)
    book.connected("alpha", [*FOUR[1:], ("m9", "9")], 1.0, more=False)
    book.node_succeeded("alpha", "h 9 m9", "f")
    assert book.avoid("alpha", "f", 1.0) == (), "it is gone, and the host is not to blame"


def test_what_left_long_ago_is_forgotten() -> None:
    book = book_of_four()
    proven(book, NAMES[0], 1, 0.0)
    book.connected("alpha", FOUR[1:], 1.0, more=False)
    assert book.find("alpha", NAMES[0]) is not None
    book.connected("alpha", FOUR[1:], 2.0 + node_outliers.LONGEST_PAUSE, more=False)
    assert book.find("alpha", NAMES[0]) is None
    assert book.avoid("alpha", "f", 1000.0) == ()


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
    book = NodeOutlierDetector(["alpha"])
    book.connected("alpha", FOUR[:count], 0.0, more=False)
    at, attempt, awaited = 0.0, 0, set[tuple[str, str, int]]()
    for name, function, task, what, passed in steps:
        if NAMES.index(name) >= count:
            continue
        at += passed
        attempt += 1
        key = (name, function, task)
        if what == "succeeded":
            book.node_succeeded("alpha", name, function)
        elif what in {"alone", "awaited"}:
            book.failed("alpha", name, function, task, attempt, at, awaited=what == "awaited")
            awaited.add(key)
        elif what == "proven" and key in awaited:
            book.proven("alpha", name, function, task, at)
        else:
            book.closed("alpha", name, function, task)
        for asked in "fgh":
            avoided = {one for one in book.avoid("alpha", asked, at) if one.startswith("m")}
            assert 2 * len(avoided) <= count
            assert book.has_other("alpha", avoided)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 9)), max_size=40))
def test_tasks_that_fail_everywhere_put_nobody_out(fails: list[tuple[str, int]]) -> None:
    """Bad inputs and bad functions: whatever was awaited is closed without a proof."""
    book = book_of_four()
    for number, (name, task) in enumerate(fails):
        assert not book.failed("alpha", name, "f", task, number + 1, 0.0, awaited=True)
        book.closed("alpha", name, "f", task)
    assert book.avoid("alpha", "f", 0.0) == ()
    assert book.out("alpha") == []
