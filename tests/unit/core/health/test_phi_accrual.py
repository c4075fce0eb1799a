from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.core.health.phi_accrual import NodeHeartbeats, PhiAccrual, deviations_of, phi_of


@pytest.mark.parametrize(
    ("deviations", "phi"),
    [(0.0, math.log10(2.0)), (1.0, 0.800), (2.0, 1.643), (3.0, 2.909), (-3.0, 0.0005)],
)
def test_known_values(deviations: float, phi: float) -> None:
    assert phi_of(deviations) == pytest.approx(phi, abs=0.003)


@pytest.mark.parametrize("deviations", [1.0, 2.0, 3.0, 4.0])
def test_close_to_the_normal_tail(deviations: float) -> None:
    exact = -math.log10(0.5 * math.erfc(deviations / math.sqrt(2.0)))
    assert phi_of(deviations) == pytest.approx(exact, rel=0.06)


@given(st.floats(0.4, 300.0))
def test_the_inverse(phi: float) -> None:
    assert phi_of(deviations_of(phi)) == pytest.approx(phi, rel=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(0.0, 1e6))
def test_finite_and_rising(deviations: float, more: float) -> None:
    assert 0.0 <= phi_of(deviations) <= phi_of(deviations + more) < math.inf


def _steady(beats: int = 100, interval: float = 1.0) -> PhiAccrual:
    detector = PhiAccrual(0.0, interval)
    for beat in range(1, beats + 1):
        detector.beat(beat * interval)
    return detector


def test_steady_beats_of_one_hertz_are_missed_after_four_seconds() -> None:
    detector = _steady()
    assert detector.silent_from() - detector.last == pytest.approx(4.0, abs=0.1)
    assert detector.phi(detector.silent_from()) == pytest.approx(8.0, rel=1e-6)
    assert detector.phi(detector.last) < 0.001


def test_a_new_stream_is_missed_within_five_seconds() -> None:
    assert PhiAccrual(0.0, 1.0).silent_from() < 5.0


def test_jitter_makes_patient() -> None:
    steady, jittery = _steady(), PhiAccrual(0.0, 1.0)
    at = 0.0
    for beat in range(100):
        at += 0.5 if beat % 2 else 1.5
        jittery.beat(at)
    assert jittery.silent_from() - jittery.last > steady.silent_from() - steady.last + 1.0


def test_an_outage_teaches_nothing_about_normal_intervals() -> None:
    detector = _steady()
    mean, deviation = detector.mean, detector.deviation
    detector.beat(detector.last + 600.0)
    assert (detector.mean, detector.deviation) == (mean, deviation)
    assert detector.phi(detector.last + 1.0) < 1.0


def test_discounted_silence_restarts_and_never_moves_backwards() -> None:
    detector = _steady()
    detector.discount_silence(500.0)
    assert detector.last == 500.0
    detector.discount_silence(100.0)
    assert detector.last == 500.0
    assert detector.phi(501.0) < 1.0


def test_old_intervals_are_forgotten() -> None:
    detector = _steady(300, 1.0)
    at = detector.last
    for _ in range(200):
        at += 2.0
        detector.beat(at)
    assert detector.mean == pytest.approx(2.0)


def test_a_beat_from_the_past_does_no_harm() -> None:
    detector = _steady()
    last = detector.last
    detector.beat(last - 10.0)
    assert detector.last == last


_STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["beat", "forget", "forgive", "clear"]), st.floats(0.0, 9.0)),
    max_size=40,
)


@given(_STEPS, st.floats(0.0, 60.0))
def test_the_nodes_of_an_endpoint_answer_as_their_detectors_asked_one_by_one(
    steps: list[tuple[str, str, float]], later: float
) -> None:
    nodes, detectors, at = NodeHeartbeats(), dict[str, PhiAccrual](), 0.0
    for node, step, pause in steps:
        at += pause
        match step:
            case "beat":
                nodes.beat(node, at, 1.0, threshold=8.0, pause=2.5)
                if node in detectors:
                    detectors[node].beat(at)
                else:
                    detectors[node] = PhiAccrual(at, 1.0)
            case "forget":
                nodes.forget(node)
                detectors.pop(node, None)
            case "forgive":
                nodes.discount_silence(at)
                for detector in detectors.values():
                    detector.discount_silence(at)
            case "clear":
                nodes.clear()
                detectors.clear()
        for when in (at, at + later):
            silent = bool(detectors) and all(when >= detector.silent_from() for detector in detectors.values())
            assert nodes.are_silent(when) == silent
            assert nodes.phi(when) == min((detector.phi(when) for detector in detectors.values()), default=0.0)
        assert len(nodes) == len(detectors)
        assert (nodes.newest.last if nodes.newest else None) == max((d.last for d in detectors.values()), default=None)
