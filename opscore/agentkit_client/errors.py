"""How an exchange ends when there is no answer to speak of."""

from opscore.models import Failure, FailureCode


class ExchangeError(Exception):
    """`reason` is a clause; or a whole sentence where it ends with a full stop."""

    def __init__(self, code: FailureCode, reason: str, *, terminal: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.terminal = terminal

    def failure(self, name: str) -> Failure:
        """The failure of a message to what is called `name`."""
        whole = self.reason.endswith(".")
        message = self.reason if whole else f"No answer from {name}: {self.reason}."
        return Failure(self.code, message, terminal=self.terminal)
