"""Programs: what is asked of a database and what is made of the answers, without any I/O.

A program is a generator. It yields statements and is sent rows; a driver runs it within one
transaction, synchronously or not. So the same code serves every engine.
"""

import re
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

R = TypeVar("R")
Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Give the rows of this statement."""

    sql: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Execute:
    """Run this statement once for each tuple of arguments; no rows come back."""

    sql: str
    rows: Sequence[tuple[Any, ...]] = ((),)


Program = Generator[Fetch | Execute, Sequence[Row], R]


def timed(program: Program[R], took: Callable[[timedelta], None]) -> Program[R]:
    """Run the program, and tell how long it took from its first statement on."""
    began = time.perf_counter()
    result = yield from program
    took(timedelta(seconds=time.perf_counter() - began))
    return result


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the engines differ. Statements are written with `?` and these words in braces."""

    name: str
    among: str
    """`column {among}`: the column's value is in the JSON array given as argument."""
    each: str
    """`FROM {each}(?) AS one`: a row for each text of a JSON array, its column is `value`."""
    array: str
    """`{array}(column)`: the values of all rows as such an array."""
    lock: str
    """After a SELECT: hold the rows until the end of the transaction."""
    skip_locked: str
    """The same, leaving out rows that someone else holds."""
    share: str
    """The same, letting others hold them likewise; nobody can delete them meanwhile."""
    by_queue: str
    """After `FROM tasks`: by the index of the queue, where the engine would not see it itself."""
    by_flow: str
    """The same by the index of flows."""
    by_free: str
    """After `FROM agents`: by the index of those with a free slot."""
    by_reachable: str
    """The same by the index of those that have an endpoint, too."""
    text: str
    """The type of texts, ordered by their code points."""
    has_table: str
    """A statement that gives a row if the table named by its argument exists."""
    one_at_a_time: str
    """A statement that only one transaction passes with a number; others wait until it ends."""
    size: str
    """A statement that gives the bytes that the database takes."""
    now: str
    """The engine's own time in microseconds."""
    remote: bool
    """Whether several processes share the database, over connections that may break."""

    @cache  # noqa: B019 - there are two dialects, and they live as long as the process
    def sql(self, text: str) -> str:
        return text.format(
            among=self.among,
            each=self.each,
            array=self.array,
            lock=self.lock,
            skip_locked=self.skip_locked,
            share=self.share,
            by_queue=self.by_queue,
            by_flow=self.by_flow,
            by_free=self.by_free,
            by_reachable=self.by_reachable,
        )

    def ddl(self, text: str) -> str:
        return re.sub(r"\bTEXT\b", self.text, text)


SQLITE = Dialect(
    name="sqlite",
    among="IN (SELECT value FROM json_each(?))",
    each="json_each",
    array="json_group_array",
    lock="",
    skip_locked="",
    share="",
    by_queue="INDEXED BY tasks_queue",
    by_flow="INDEXED BY tasks_flow",
    by_free="INDEXED BY agents_free",
    by_reachable="INDEXED BY agents_reachable",
    text="TEXT",
    has_table="SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
    one_at_a_time="SELECT ?",
    size="SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    now="SELECT CAST((julianday('now') - 2440587.5) * 86400000000 AS BIGINT)",
    remote=False,
)

POSTGRES = Dialect(
    name="postgres",
    among="= ANY (ARRAY(SELECT jsonb_array_elements_text(CAST(? AS jsonb))))",
    each="jsonb_array_elements_text",
    array="jsonb_agg",
    lock="FOR UPDATE",
    skip_locked="FOR UPDATE SKIP LOCKED",
    share="FOR KEY SHARE",
    by_queue="",
    by_flow="",
    by_free="",
    by_reachable="",
    text='TEXT COLLATE "C"',
    has_table="SELECT 1 WHERE to_regclass(?) IS NOT NULL",
    one_at_a_time="SELECT pg_advisory_xact_lock(?)",
    size="SELECT pg_database_size(current_database())",
    now="SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    remote=True,
)
