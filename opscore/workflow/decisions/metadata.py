"""Metadata of agents and sessions: free for their owners to fill, and bounded."""

from collections.abc import Mapping
from typing import Any

import orjson

from opscore.exceptions import PayloadTooLargeError

METADATA_LIMIT = 64 * 1024


def check_metadata(metadata: Mapping[str, Any] | None, owner: str) -> None:
    """Raise PayloadTooLargeError if it is too much; `owner` says whose it is."""
    if metadata and len(orjson.dumps(metadata)) > METADATA_LIMIT:
        raise PayloadTooLargeError(
            f"The metadata of {owner} may have at most {METADATA_LIMIT // 1024} KiB in all; keep "
            "larger data elsewhere and say here where it is."
        )
