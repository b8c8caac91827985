"""Processes that tests and measurements start find their code compiled, as it is for users."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory


@contextmanager
def compiled_code_kept() -> Iterator[None]:
    """Only the first of the processes to come compiles what all of them load.

    Where files of compiled code are unwanted, that takes each of them longer than all the rest.
    """
    with TemporaryDirectory(prefix="opscore-compiled-", ignore_cleanup_errors=True) as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        yield
