"""How far something has come: live on a terminal, and as a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

_SECONDS_BETWEEN_LINES = 5.0

Tell = Callable[[int], None]


@contextmanager
def progress(verb: str) -> Iterator[Tell]:
    """Gives a function to be told how many records it has been until now."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(verb)
        return
    with console.status(f"{verb} …") as status:
        yield lambda count: status.update(f"{verb} {count:,} records")


def _lines(verb: str) -> Tell:
    last = time.monotonic()

    def tell(count: int) -> None:
        nonlocal last
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{verb} {count:,} records", file=sys.stderr)

    return tell
