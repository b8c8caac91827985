"""A start that was refused, told in a sentence instead of a traceback."""

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def note_refusal(app: FastAPI, reason: str) -> None:
    app.state.refusal = reason


def refusal_of(app: FastAPI) -> str | None:
    """Why the application did not start, if it was for a reason that a sentence can tell."""
    refusal: str | None = getattr(app.state, "refusal", None)
    return refusal


def plainly(app: FastAPI) -> ASGIApp:
    """The application, telling its server only the sentence when it refuses to start."""

    async def speaking(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plainly(message: Message) -> None:
            refusal = refusal_of(app)
            if message["type"] == "lifespan.startup.failed" and refusal is not None:
                message = {**message, "message": refusal}
            await send(message)

        await app(scope, receive, send_plainly if scope["type"] == "lifespan" else send)

    return speaking
