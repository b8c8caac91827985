"""How much of the processor something takes, however busy the machine is with other things."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def taking_less_than(seconds: float) -> Iterator[None]:
    """What it costs to look through all that other tests have left is not counted."""
    gc.disable()
    began = time.process_time()
    try:
        yield
    finally:
        gc.enable()
    taken = time.process_time() - began
    assert taken < seconds, f"{taken:.3f} s"
