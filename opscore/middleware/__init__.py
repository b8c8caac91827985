"""What every request passes, from outside in: context and log, key, body."""

from opscore.middleware.api_key import ApiKeyGate
from opscore.middleware.body_guard import BodyGuard
from opscore.middleware.json_text import parse_json
from opscore.middleware.problem import Problem, problem
from opscore.middleware.request_context import AccessLog, RequestContext

__all__ = [
    "AccessLog",
    "ApiKeyGate",
    "BodyGuard",
    "Problem",
    "RequestContext",
    "parse_json",
    "problem",
]
