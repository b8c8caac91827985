"""The plan of a chaos run."""

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
    spans = (
        (Kind.KILL, tempo.kill, (0.0, 0.0)),
        (Kind.STOP, tempo.stop, tempo.stopped),
        (Kind.DATABASE, tempo.database, tempo.down),
    )
    series = plan(seed, 300, 3, True, tempo)
    for blows, (kind, between, lasts) in zip(series, spans, strict=True):
        assert {blow.kind for blow in blows} == {kind}
        assert {blow.replica for blow in blows} <= {0, 1, 2}
        assert all(between[0] <= blow.after <= between[1] for blow in blows)
        assert all(lasts[0] <= blow.lasts <= lasts[1] for blow in blows)
        assert sum(blow.after + blow.lasts for blow in blows) >= 300


def test_without_a_database_there_is_none_to_strike() -> None:
    """What is left out changes nothing for the others."""
    assert plan(7, 100, 3, False) == plan(7, 100, 3, True)[:2]


def test_some_kills_may_fall_into_a_start() -> None:
    kills, stops = plan(7, 1000, 3, False)
    assert 0 < sum(blow.eager for blow in kills) < len(kills) / 2
    assert not any(blow.eager for blow in stops)


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    for longer, shorter in zip(plan(7, 200, 3, True), plan(7, 100, 3, True), strict=True):
        assert longer[: len(shorter)] == shorter
