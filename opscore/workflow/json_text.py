"""JSON text as a document. Odd numbers and repeated names are kept for the schema to point at."""

import json
from collections import Counter
from typing import Any

from opscore.exceptions import Fault, InvalidWorkflowError
from opscore.json_rules import MAX_MEMBERS, has_too_many_members
from opscore.workflow.values import ObjectWithRepeats, read_number


def parse_json(text: str) -> Any:
    """Read the text or raise InvalidWorkflowError with the line and column of what is wrong."""
    if has_too_many_members(text.encode("utf-8", "surrogatepass")):
        raise _unreadable(f"The text has more than {MAX_MEMBERS} values.", "too_many_members")
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=read_number,
            parse_float=read_number,
            # NaN and Infinity become floats that no field and no parameter accepts.
            parse_constant=float,
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _unreadable(f"The text is not JSON: {error.msg} ({place}).", "bad_json") from error
    except RecursionError as error:
        raise _unreadable("The text is nested too deep.", "too_deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) == len(pairs):
        return document
    counts = Counter(name for name, _ in pairs)
    return ObjectWithRepeats(document, tuple(name for name in counts if counts[name] > 1))


def _unreadable(message: str, code: str) -> InvalidWorkflowError:
    return InvalidWorkflowError(message, faults=[Fault("", message, code)])
