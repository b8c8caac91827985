"""Statements with their values written into the text, so that many of them go in one message."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from opscore.storage.sql.program import Execute

_VALUES = " VALUES "
_CONFLICT = " ON CONFLICT "


def literal(value: Any) -> str:
    """The value as PostgreSQL writes it, where standard_conforming_strings is on."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if type(value) is int:
        # In brackets, for a minus before it would make another operator.
        return str(value) if value >= 0 else f"({value})"
    raise TypeError(f"no column holds a {type(value).__name__}")


def written_out(statement: Execute) -> str:
    """The statement for all its rows, which is empty if there are none; those of an INSERT
    share one."""
    if not statement.rows:
        return ""
    head, row, tail = _parts(statement.sql)
    if row:
        return head + ", ".join(_fill(row, values) for values in statement.rows) + tail
    return "; ".join(_fill(head, values) for values in statement.rows)


@lru_cache(maxsize=256)
def _parts(sql: str) -> tuple[str, str, str]:
    """What stands before the values of an INSERT, the values, and what stands behind."""
    head, values, rest = sql.partition(_VALUES)
    if not values:
        return sql, "", ""
    row, conflict, tail = rest.partition(_CONFLICT)
    return head + values, row, conflict + tail


def _fill(text: str, values: Sequence[Any]) -> str:
    if not values:
        return text
    first, *others = text.split("?")
    return first + "".join(
        literal(value) + part for value, part in zip(values, others, strict=True)
    )
