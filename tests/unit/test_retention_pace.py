"""The pace of pruning: long pauses, so that others have four fifths of the time; short batches."""

from datetime import timedelta

import pytest

from opscore.workflow.retention import Pace

MILLISECOND = timedelta(milliseconds=1)


@pytest.mark.parametrize("taken", [0, 1, 60, 199, 5000])
def test_pause_is_four_times_as_long_as_the_batch_took(taken: int) -> None:
    _, pause = Pace(100, 1000).after(taken * MILLISECOND)
    assert pause == 4 * taken * MILLISECOND


@pytest.mark.parametrize(
    ("batch", "taken", "following"),
    [
        (1000, 201, 500),
        (1000, 200, 1000),
        (400, 50, 400),
        (400, 49, 800),
        (800, 10, 1000),
        (30, 900, 20),
        (20, 900, 20),
    ],
)
def test_batches_are_halved_when_they_take_long_and_doubled_when_they_are_short(
    batch: int, taken: int, following: int
) -> None:
    pace, _ = Pace(batch, 1000).after(taken * MILLISECOND)
    assert pace == Pace(following, 1000)


def test_batches_never_exceed_the_largest_however_small_it_is() -> None:
    pace, _ = Pace(3, 3).after(900 * MILLISECOND)
    assert pace == Pace(3, 3)
