"""The port that engines implement."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from opscore.exceptions import StorageError
from opscore.storage.sql.program import Dialect, Program

R = TypeVar("R")


class CommitUnknownError(StorageError):
    """The connection broke during the commit: it may have taken place or not."""


class Driver(ABC):
    """Runs programs, each as one transaction; what fails with the engine is StorageError."""

    dialect: Dialect

    @abstractmethod
    async def open(self) -> None:
        """Connect and bring the schema up to date."""

    @abstractmethod
    async def close(self) -> None:
        """Give every connection back."""

    @abstractmethod
    async def read(self, program: Program[R]) -> R:
        """Run a program of one statement that reads few rows by their keys."""

    @abstractmethod
    async def scan(self, program: Program[R]) -> R:
        """Run a program that may look through many rows, and sees all of them at one moment."""

    @abstractmethod
    async def write(self, make: Callable[[], Program[R]], urgent: bool = False) -> R:
        """Run a program and commit; when it raises, nothing of it remains.

        It is made anew when it has to be run again. `urgent` ones need not wait for the rest.
        Raises CommitUnknownError when nobody can say whether the commit took place.
        """
