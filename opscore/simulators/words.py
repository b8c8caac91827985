"""The words that choose a behaviour. They import nothing, so that the command line stays quick."""

from typing import Literal

Forwarding = Literal["works", "loses"]
Style = Literal["reports", "example", "capitals", "finished", "precise"]
Fault = Literal[
    "error",
    "bad_gateway",
    "unavailable",
    "throttled",
    "rejected",
    "redirect",
    "status_error",
    "reset",
    "truncated",
    "broken_json",
    "html",
    "empty",
    "huge",
    "late",
    "silence",
]
