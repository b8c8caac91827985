"""Rules for keys and secrets that guard the service: long, visible, and never blank by mistake."""

from pydantic_core import PydanticCustomError

# Long enough that it is not found by trying.
MIN_SECRET_LENGTH = 16

_ENOUGH = f"at least {MIN_SECRET_LENGTH} characters"
_MAKE_ONE = "make one with: openssl rand -hex 32"


def check_secret(value: str, *, dev: bool) -> str | None:
    """Return the secret, or None for an empty one; raise PydanticCustomError for a weak one.

    In development a short secret is accepted, and a blank one counts as empty.
    """
    if not value.strip():
        if value and not dev:
            raise _refused(f"it is blank; write {_ENOUGH}")
        return None
    if not value.isprintable() or " " in value:
        raise _refused("write it without blanks and line ends")
    if is_weak(value) and not dev:
        raise _refused(f"it is too short; write {_ENOUGH}")
    return value


def split_secrets(value: str, *, dev: bool) -> tuple[str, ...]:
    """Return the checked secrets of a list that is separated by commas."""
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        check_secret(value.replace(",", " "), dev=dev)
    return tuple(part for part in parts if check_secret(part, dev=dev) is not None)


def is_weak(secret: str) -> bool:
    return len(secret) < MIN_SECRET_LENGTH


def _refused(reason: str) -> PydanticCustomError:
    return PydanticCustomError("secret", "{reason}", {"reason": f"{reason}; {_MAKE_ONE}."})
