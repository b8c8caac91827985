"""What health and metrics tell of the service, looked at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from opscore.api.core import Core
from opscore.exceptions import StorageError
from opscore.models import Counts, Replica

_STORAGE_AWAY = "The storage does not answer; the log, and this route with the API key, say why."


@dataclass(frozen=True)
class Observation:
    """`reasons` are sentences why the service is not ready; `public_reasons` name no addresses.

    Nothing can be said of what is stored while the storage is away: `counts` is None then.
    """

    reasons: Sequence[str]
    public_reasons: Sequence[str]
    counts: Counts | None
    replicas: Sequence[Replica]


async def observe(core: Core) -> Observation:
    reasons = []
    if core.failure is not None:
        reasons.append(core.failure)
    if core.lifecycle.draining:
        reasons.append("The service is shutting down.")
    try:
        await core.storage_check.run()
        counts, replicas = await core.storage.counts(), await core.storage.replicas()
    except StorageError as error:
        return Observation([*reasons, error.detail], [*reasons, _STORAGE_AWAY], None, ())
    return Observation(reasons, reasons, counts, replicas)
