"""The SQL store: statements written once, run by whichever driver is given."""

from opscore.storage.sql.driver import Driver
from opscore.storage.sql.store import SqlStorage

__all__ = ["Driver", "SqlStorage"]
