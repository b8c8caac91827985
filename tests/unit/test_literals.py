"""Statements with their values written into the text."""

from typing import Any

import pytest

from opscore.storage.literals import written_out
from opscore.storage.sql.program import Execute

INSERT = "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO NOTHING"


@pytest.mark.parametrize(
    ("sql", "rows", "text"),
    [
        (INSERT, [], ""),
        ("UPDATE t SET a = ?", [], ""),
        (INSERT, [(1, None)], "INSERT INTO t (a, b) VALUES (1, NULL) ON CONFLICT (a) DO NOTHING"),
        (
            INSERT,
            [("it's", -2), ("", 0)],
            "INSERT INTO t (a, b) VALUES ('it''s', (-2)), ('', 0) ON CONFLICT (a) DO NOTHING",
        ),
        ("UPDATE t SET a = ?", [(1,), ("?",)], "UPDATE t SET a = 1; UPDATE t SET a = '?'"),
        ("DELETE FROM t", ((),), "DELETE FROM t"),
    ],
)
def test_a_statement_is_written_out_for_all_its_rows(sql: str, rows: Any, text: str) -> None:
    assert written_out(Execute(sql, rows)) == text
