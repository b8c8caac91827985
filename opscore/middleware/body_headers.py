"""What a request's headers say of its body."""

from dataclasses import dataclass

from starlette.types import Scope

from opscore.exceptions import BadRequestError, UnsupportedMediaTypeError

# Below this a body that nobody reads is cheaper to let pass than a new connection.
SMALL_BODY = 64 * 1024

_TELLING = frozenset(
    {b"content-length", b"content-type", b"transfer-encoding", b"content-encoding", b"expect"}
)


@dataclass(slots=True)
class BodyHeaders:
    length: int = 0
    chunked: bool = False
    content_type: bytes | None = None
    expects_continue: bool = False

    @property
    def present(self) -> bool:
        return self.chunked or self.length > 0

    @property
    def passes_unread(self) -> bool:
        """Whether the connection stays usable although nobody reads the body."""
        return not (self.chunked or self.expects_continue or self.length > SMALL_BODY)


def body_headers(scope: Scope) -> BodyHeaders:
    """Raise BadRequestError or UnsupportedMediaTypeError for headers that no body may have."""
    found = BodyHeaders()
    for name, value in scope["headers"]:
        if name not in _TELLING:
            continue
        if name == b"content-length":
            found.length = _length(value)
        elif name == b"content-type":
            if found.content_type is not None:
                raise BadRequestError("Send one Content-Type header, not several.")
            found.content_type = value
        elif name == b"transfer-encoding":
            found.chunked = True
        elif name == b"content-encoding":
            if value.strip().lower() not in (b"", b"identity"):
                raise UnsupportedMediaTypeError("Send the body without a Content-Encoding.")
        else:
            found.expects_continue = True
    return found


def leaves_connection_usable(scope: Scope) -> bool:
    """Whether an answer may be sent without reading the body and without closing afterwards."""
    try:
        return body_headers(scope).passes_unread
    except (BadRequestError, UnsupportedMediaTypeError):
        return False


def _length(value: bytes) -> int:
    # isdigit on bytes knows ASCII digits only.
    if not value.isdigit() or len(value) > 15:
        raise BadRequestError("Content-Length must be a number.")
    return int(value)
