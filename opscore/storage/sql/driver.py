"""The port that engines implement."""

from abc import ABC, abstractmethod
from typing import TypeVar

from opscore.storage.sql.program import Dialect, Program

R = TypeVar("R")


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
        """Run a program that changes nothing and reads few rows by their keys."""

    @abstractmethod
    async def scan(self, program: Program[R]) -> R:
        """The same for a program that may look through many rows."""

    @abstractmethod
    async def write(self, program: Program[R]) -> R:
        """Run a program and commit; when it raises, nothing of it remains."""
