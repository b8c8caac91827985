"""The plan of a chaos run."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.chaos_plan import BRISK, STEADY, Kind, Tempo, plan


@given(st.integers(0, 10**6))
def test_a_seed_gives_its_plan_again(seed: int) -> None:
    assert plan(seed, 100, 3, True) == plan(seed, 100, 3, True)


def test_another_seed_gives_another_plan() -> None:
    assert plan(1, 100, 3, True) != plan(2, 100, 3, True)


@given(st.integers(0, 10**6), st.sampled_from([STEADY, BRISK]))
def test_blows_keep_their_distance_and_their_bounds(seed: int, tempo: Tempo) -> None:
    blows = plan(seed, 300, 3, True, tempo)
    assert [blow.at for blow in blows] == sorted(blow.at for blow in blows)
    assert {blow.replica for blow in blows} <= {0, 1, 2}
    for kind, between, lasts in (
        (Kind.KILL, tempo.kill, (0.0, 0.0)),
        (Kind.STOP, tempo.stop, tempo.stopped),
        (Kind.DATABASE, tempo.database, tempo.down),
    ):
        own = [blow for blow in blows if blow.kind is kind]
        assert all(lasts[0] <= blow.lasts <= lasts[1] for blow in own)
        for earlier, later in itertools.pairwise(own):
            rest = later.at - earlier.at - earlier.lasts
            assert between[0] - 1e-6 <= rest <= between[1] + 1e-6
        assert 300 - own[-1].at - own[-1].lasts <= between[1]


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_of_blow_has_its_own_numbers(kind: Kind) -> None:
    """What another kind does later or not at all changes nothing for this one."""
    alone = [blow for blow in plan(7, 100, 3, False) if blow.kind is kind]
    among = [blow for blow in plan(7, 100, 3, True) if blow.kind is kind]
    assert alone == ([] if kind is Kind.DATABASE else among)


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    longer = plan(7, 200, 3, True)
    assert [blow for blow in longer if blow.at < 100] == list(plan(7, 100, 3, True))
