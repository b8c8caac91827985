"""The one composition root: settings in, application out."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from opscore.agentkit_client import AgentKitClient
from opscore.api import (
    agents,
    events,
    exporting,
    health,
    metrics,
    sessions,
    states,
    tasks,
    webhook,
    workflows,
)
from opscore.api.core import Core, open_core
from opscore.api.dependencies import known_query
from opscore.api.docs import PAGES, PUBLIC_PATHS, PUBLIC_PREFIXES, docs_headers, install_docs
from opscore.api.errors import install_error_handlers
from opscore.api.keys import with_api_key
from opscore.api.refusal import note_refusal
from opscore.api.start_log import log_start
from opscore.api.webhook_refusals import WebhookRefusals
from opscore.clock import Clock
from opscore.exceptions import OpsCoreError
from opscore.logging_config import LogPipeline
from opscore.middleware import ApiKeyGate, BodyGuard, RequestContext
from opscore.settings import Settings
from opscore.storage import Storage
from opscore.workflow.dispatcher import Courier

logger = logging.getLogger(__name__)

PREFIX = "/v1/opscore"
_HEALTH = frozenset({"/health", "/health/live", "/health/ready"})


class Application(FastAPI):
    """FastAPI with our layers around the framework's own: what they answer never enters it."""

    def __init__(self, layers: Sequence[Middleware], **given: Any) -> None:
        super().__init__(**given)
        self._layers = tuple(layers)

    def build_middleware_stack(self) -> ASGIApp:
        app = super().build_middleware_stack()
        for layer in reversed(self._layers):
            app = layer.cls(app, *layer.args, **layer.kwargs)
        return app


def create_app(
    settings: Settings,
    *,
    storage: Storage | None = None,
    courier: Courier | None = None,
    clock: Clock | None = None,
    log: LogPipeline | None = None,
    imported: Path | None = None,
) -> FastAPI:
    """The application as settings want it; what is given is used instead of the real part.

    An export that is `imported` is what it begins with; its storage must be empty.
    """
    settings = with_api_key(settings)
    if log is not None and settings.api_key is not None:
        log.hide(settings.api_key.get_secret_value())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                core = await open_core(settings, storage, courier, clock, log)
                stack.push_async_callback(_close, core)
                app.state.core = core
                if imported is not None:
                    # Loaded on use: it takes long, and nobody else needs it at the start.
                    from opscore.api.moving import take_in  # noqa: PLC0415 - see above

                    await take_in(imported, core.storage)
                await stack.enter_async_context(_running(core))
            except OpsCoreError as error:
                note_refusal(app, error.detail)
                raise
            except asyncio.CancelledError:
                note_refusal(app, "A signal ended the start before the service was ready.")
                raise
            yield

    app = Application(
        _layers(settings, log),
        title="Ops-Core",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.include_router(_resources(), prefix=PREFIX)
    app.include_router(health.router)
    app.include_router(metrics.router)
    install_docs(app)
    install_error_handlers(app)
    return app


def _resources() -> APIRouter:
    router = APIRouter(dependencies=[Depends(known_query)])
    for module in (sessions, tasks, states, agents, webhook, workflows, events, exporting):
        router.include_router(module.router)
    return router


def _layers(settings: Settings, log: LogPipeline | None) -> list[Middleware]:
    """What every request passes, from outside in."""
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    return [
        Middleware(
            RequestContext,
            access_log=log if _logs_access(settings) else None,
            pages=(PAGES,),
            page_headers=docs_headers(),
        ),
        Middleware(
            ApiKeyGate,
            keys=(key,),
            public_paths=_HEALTH | PUBLIC_PATHS | {webhook.PATH},
            public_prefixes=PUBLIC_PREFIXES,
        ),
        Middleware(WebhookRefusals, path=webhook.PATH),
        Middleware(
            BodyGuard,
            path_limits={webhook.PATH: webhook.BODY_LIMIT},
            unparsed_paths=(webhook.PATH,),
            yaml_prefixes=(f"{PREFIX}/workflow",),
        ),
        Middleware(states.StateReports),
    ]


def _logs_access(settings: Settings) -> bool:
    return settings.access_log and settings.log_level in ("DEBUG", "INFO")


@asynccontextmanager
async def _running(core: Core) -> AsyncIterator[None]:
    log_start(core)
    await core.start()
    # What exists now lives as long as the process; the collector need not look at it again.
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        await core.stop()


async def _close(core: Core) -> None:
    """Give back what was opened, also when the start fails later."""
    if isinstance(core.courier, AgentKitClient):
        await core.courier.close()
    await core.storage.close()
