"""Identifiers rise with time, or follow from what they name."""

import time
import uuid

import time_machine
from hypothesis import given
from hypothesis import strategies as st

from opscore import ids

SESSION = "01939d3a-0000-7000-8000-000000000001"


def test_new_ids_are_version_7_and_carry_the_time() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(ids.new_id())
    after = time.time_ns() // 1_000_000 + 1
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= after


def test_ids_of_one_process_rise_strictly() -> None:
    made = [ids.new_id() for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_F20_ids_rise_also_when_the_wall_clock_is_set_back() -> None:
    made = [ids.new_id()]
    with time_machine.travel(time.time() - 3600, tick=False):
        made += [ids.new_id() for _ in range(3)]
    assert made == sorted(set(made))


def test_two_ids_of_one_moment_differ_in_more_than_the_counter() -> None:
    tails = {ids.new_id()[19:] for _ in range(100)}
    assert len(tails) == 100


@given(st.text(), st.none() | st.text())
def test_a_task_id_is_the_same_whoever_derives_it(step: str, stands_for: str | None) -> None:
    once = ids.task_id(SESSION, step, stands_for)
    assert once == ids.task_id(SESSION, step, stands_for)
    assert uuid.UUID(once).version == 5


def test_task_ids_differ_by_session_step_and_what_the_step_stands_for() -> None:
    other = "01939d3a-0000-7000-8000-000000000002"
    made = {
        ids.task_id(session, step, stands_for)
        for session in (SESSION, other)
        for step in ("a", "b")
        for stands_for in (None, "a", "c")
    }
    assert len(made) == 12
