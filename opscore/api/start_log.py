"""The first lines of the log: how this process is set up, and what may surprise its operator."""

import logging

from opscore import __version__
from opscore.api.core import Core
from opscore.settings import MIN_SECRET_LENGTH, Settings
from opscore.storage.location import is_in_memory, location

logger = logging.getLogger(__name__)


def log_start(core: Core) -> None:
    _log_setup(core.settings)
    _warn_of_surprises(core)


def _log_setup(settings: Settings) -> None:
    url = settings.storage_url
    logger.info(
        "Ops-Core %s starts: dispatch mode %s, AgentKit at %s, storage %s.",
        __version__,
        settings.dispatch_mode.value,
        settings.agentkit_api_url,
        "memory" if is_in_memory(url) else location(url),
    )


def _warn_of_surprises(core: Core) -> None:
    settings = core.settings
    if not core.storage.durable:
        logger.warning("Everything is kept in memory and is gone after a restart.")
    for variable in settings.weak_secrets:
        logger.warning(
            "%s is shorter than %d characters, which only OPSCORE_DEV accepts: it can be guessed.",
            variable,
            MIN_SECRET_LENGTH,
        )
    if settings.allow_unsigned_webhooks and not settings.webhook_secret:
        logger.warning("Webhooks are accepted without a signature: anyone may register agents.")
    elif not settings.webhook_secret:
        logger.warning(
            "OPSCORE_WEBHOOK_SECRET is not set, so AgentKit's webhooks are refused; agents can "
            "be registered with POST agents only."
        )
