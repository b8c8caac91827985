"""Agents of an import that replace each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.api.import_rules import ImportRules
from opscore.storage.portable import KeptAgent
from tests.builders import agent

numbers = st.integers(0, 9)


def leads_back(successors: dict[int, int]) -> bool:
    """Follow every chain; one that is longer than there are agents goes round."""
    for start in successors:
        at: int | None = start
        for _ in range(len(successors) + 1):
            at = successors.get(at) if at is not None else None
        if at is not None:
            return True
    return False


@given(st.dictionaries(numbers, numbers, max_size=10))
def test_circle_of_successors_is_refused_and_every_chain_taken(successors: dict[int, int]) -> None:
    rules = ImportRules()
    kept = [
        KeptAgent(agent(f"a{old}", replaced_by=f"a{new}"), 0) for old, new in successors.items()
    ]
    if leads_back(successors):
        with pytest.raises(ValueError, match="in a circle"):
            _check_all(rules, kept)
    else:
        _check_all(rules, kept)


def _check_all(rules: ImportRules, kept: list[KeptAgent]) -> None:
    for one in kept:
        rules.check(one)
