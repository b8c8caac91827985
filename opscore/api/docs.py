"""The interactive documentation, complete without the internet."""

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from opscore import __version__
from opscore.api import error_page, states
from opscore.api.openapi_texts import describe
from opscore.api.problems import ProblemView
from opscore.api.schemas import AgentDetails, StateIn
from opscore.api.views import MessageView, ReportView
from opscore.middleware.security_headers import RawHeaders, page_headers

PAGES = "/docs"
ASSETS = f"{PAGES}/assets"
PUBLIC_PATHS = frozenset({"/", PAGES, error_page.PATH, "/openapi.json"})
PUBLIC_PREFIXES = (f"{ASSETS}/",)
NO_KEY = ("/health", "/v1/opscore/internal/")

_REF = "#/components/schemas/{model}"


def install_docs(app: FastAPI) -> None:
    folder = Path(fastapi_offline.__file__).parent / "static"
    app.mount(ASSETS, StaticFiles(directory=folder), name="docs-assets")
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's own way

    @app.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse(PAGES)

    @app.get(PAGES, include_in_schema=False)
    async def docs() -> HTMLResponse:
        return _swagger_page()

    @app.get(error_page.PATH, include_in_schema=False)
    async def errors() -> HTMLResponse:
        return HTMLResponse(error_page.error_page())


def docs_headers() -> RawHeaders:
    """Return the security headers of the pages, which name their inline scripts and styles."""
    return page_headers(bytes(_swagger_page().body).decode(), error_page.error_page())


def _swagger_page() -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Ops-Core API",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
        # The page would otherwise ask a validator on the internet for a badge.
        swagger_ui_parameters={"validatorUrl": None},
    )


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = _complete(
            get_openapi(
                title="Ops-Core",
                version=__version__,
                description="The operations core for AI agents.",
                routes=app.routes,
            )
        )
    return app.openapi_schema


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add what FastAPI cannot see: the plain route, the error shape, the key."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name, model in _models().items():
        schema = model.model_json_schema(ref_template=_REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[name] = schema
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    document["paths"].setdefault(states.PATH, {})["post"] = states.openapi_entry()
    document["components"]["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        if not path.startswith(NO_KEY):
            for operation in operations.values():
                operation["security"] = [{"apiKey": []}]
    describe(document)
    return document


def _models() -> dict[str, Any]:
    return {
        "Problem": ProblemView,
        "StateIn": StateIn,
        "MessageView": MessageView,
        "ReportView": ReportView,
        "AgentDetails": AgentDetails,
    }
