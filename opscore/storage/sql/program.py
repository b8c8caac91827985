"""Programs: what is asked of a database and what is made of the answers, without any I/O.

A program is a generator. It yields statements and is sent rows; a driver runs it within one
transaction, synchronously or not. So the same code serves every engine.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the engines differ. Statements are written with `?` and these words in braces."""

    name: str
    among: str
    """`column {among}`: the column's value is in the JSON array given as argument."""
    lock: str
    """After a SELECT: hold the rows until the end of the transaction."""
    skip_locked: str
    """The same, leaving out rows that someone else holds."""
    has_table: str
    """A statement that gives a row if the table named by its argument exists."""

    def sql(self, text: str) -> str:
        return text.format(among=self.among, lock=self.lock, skip_locked=self.skip_locked)


SQLITE = Dialect(
    name="sqlite",
    among="IN (SELECT value FROM json_each(?))",
    lock="",
    skip_locked="",
    has_table="SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
)

POSTGRES = Dialect(
    name="postgres",
    among="= ANY (ARRAY(SELECT jsonb_array_elements_text(CAST(? AS jsonb))))",
    lock="FOR UPDATE",
    skip_locked="FOR UPDATE SKIP LOCKED",
    has_table="SELECT 1 WHERE to_regclass(?) IS NOT NULL",
)
