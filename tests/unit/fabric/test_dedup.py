"""Unit tests of the memory for events that came twice."""

from __future__ import annotations

from typing import Any

import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.fabric.dedup import Deduplicator


def test_doubles_are_left_out_and_counted(tools: Any) -> None:
    seen = Deduplicator()
    one, two, three = tools.events(3)
    assert seen.drop_duplicates([one, two, one]) == [one, two]
    assert seen.drop_duplicates([two, three]) == [three]
    assert seen.doubles == 2


def test_the_same_id_of_another_source_is_another_event(tools: Any) -> None:
    one = tools.event()
    other = type(one)(**{name: getattr(one, name) for name in one.__struct_fields__} | {"source": "/other"})
    assert Deduplicator().drop_duplicates([one, other]) == [one, other]


def test_memory_is_bounded_and_keeps_the_newer_half(tools: Any) -> None:
    seen = Deduplicator(capacity=100)
    events = tools.events(1000)
    seen.drop_duplicates(events)
    assert seen.drop_duplicates(events[-50:]) == []
    assert seen.drop_duplicates(events[:10]) == events[:10]
    assert len(seen._young) + len(seen._old) <= 100


def test_too_small() -> None:
    with pytest.raises(ConfigurationError, match="2 or more"):
        Deduplicator(1)
