"""Suggestions for a word that is not known."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 64


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that looks most like the given one, capitals and signs set aside."""
    if len(word) > _LONGEST:
        return None
    by_letters = {_letters(one): one for one in known}
    found = get_close_matches(_letters(word), by_letters, n=1)
    return by_letters[found[0]] if found else None


def _letters(word: str) -> str:
    return re.sub("[^a-z0-9]", "", word.lower())
