"""What comes while others are under way goes together next, and everybody is answered."""

import asyncio
from collections.abc import Sequence

import pytest

from opscore.storage.sql.together import Together
from tests.fakes import settle


class Desk:
    """Answers a group when it is told to; `groups` are those it was given."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.open = asyncio.Event()
        self.trouble: Exception | None = None

    async def work(self, questions: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(questions))
        await self.open.wait()
        if self.trouble is not None:
            raise self.trouble
        return [ValueError("odd") if one % 2 else one * 10 for one in questions]


def ask(together: Together[int, int], numbers: Sequence[int]) -> "list[asyncio.Task[int]]":
    return [asyncio.create_task(together.ask(number)) for number in numbers]


@pytest.mark.parametrize("workers", [1, 2])
async def test_those_who_come_meanwhile_share_the_next_group(workers: int) -> None:
    desk = Desk()
    together: Together[int, int] = Together("desk", [desk.work] * workers)
    first = ask(together, [2])
    await settle()
    others = ask(together, [4, 6])
    await settle()
    late = ask(together, [8])
    await settle()
    assert desk.groups == [[2], [4, 6]][:workers]
    desk.open.set()
    assert await asyncio.gather(*first, *others, *late) == [20, 40, 60, 80]
    assert desk.groups == ([[2], [4, 6, 8]] if workers == 1 else [[2], [4, 6], [8]])
    await together.close()


async def test_each_gets_the_answer_of_its_own_question() -> None:
    desk = Desk()
    together: Together[int, int] = Together("desk", [desk.work])
    desk.open.set()
    good, bad = ask(together, [2, 3])
    assert await good == 20
    with pytest.raises(ValueError, match="odd"):
        await bad


async def test_trouble_is_told_to_everybody_and_the_next_group_goes_on() -> None:
    desk = Desk()
    desk.trouble = TypeError("a bug")
    together: Together[int, int] = Together("desk", [desk.work])
    desk.open.set()
    outcomes = await asyncio.gather(*ask(together, [2, 4]), return_exceptions=True)
    assert [type(one) for one in outcomes] == [TypeError, TypeError]
    desk.trouble = None
    assert await together.ask(6) == 60


async def test_who_went_away_holds_up_nobody() -> None:
    desk = Desk()
    together: Together[int, int] = Together("desk", [desk.work])
    gone, here = ask(together, [2, 4])
    await settle()
    gone.cancel()
    desk.open.set()
    assert await here == 40
    await together.close()
    assert gone.cancelled()
