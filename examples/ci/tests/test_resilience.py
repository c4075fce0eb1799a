"""Does the survey give the same answer when its sites fail?"""

import pytest
from survey import survey

from diaspora_parsl.testing.faults import Kill

ANSWER = 3.1339  # of 40 batches, where nothing fails


@pytest.mark.faults(Kill(at=0.5, endpoint="alpha", until=2.0))
def test_the_answer_survives_a_site_that_is_killed(resilient_pool):
    with resilient_pool("alpha", "beta", workers=2) as run:
        assert survey(40) == ANSWER
    story = run.story()
    assert story.rerouted  # or the fault would have met nothing
    assert not story.lost


@pytest.mark.faults(seed=1, count=3, seconds=3.0, endpoints=["alpha", "beta"])
def test_the_answer_survives_whatever_the_seed_brings(resilient_pool):
    with resilient_pool("alpha", "beta", workers=2) as run:
        assert survey(40) == ANSWER
        run.wait_for_faults()
    assert not run.story().lost
