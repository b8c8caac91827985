"""The words that choose a behaviour. They import nothing, so that the command line stays quick."""

from typing import Literal

Forwarding = Literal["works", "loses"]
Style = Literal["reports", "example", "capitals", "finished", "precise"]
