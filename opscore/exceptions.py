"""Every error Ops-Core raises on purpose, each with a stable code and an HTTP status.

Nothing here knows of HTTP beyond the number: the API turns an error into its answer in one place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

MAX_FAULTS = 50
"""The most faults that one answer lists."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a document: where (a JSON pointer), and what to do about it."""

    pointer: str
    message: str
    code: str = "invalid"


class OpsCoreError(Exception):
    """The root of the tree. `detail` is a sentence a person can act on; it never holds input."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        retry_after: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)
        self.retry_after = retry_after
        self.extra = dict(extra or {})


class ConfigurationError(OpsCoreError):
    """A setting is missing or wrong; the process does not start."""

    code = "configuration_error"
    title = "Bad configuration"


# --- the request is wrong -------------------------------------------------------------------


class BadRequestError(OpsCoreError):
    code = "bad_request"
    status = 400
    title = "Bad request"


class UnauthorizedError(OpsCoreError):
    code = "unauthorized"
    status = 401
    title = "Not authenticated"


class ForbiddenError(OpsCoreError):
    code = "forbidden"
    status = 403
    title = "Not allowed"


class NotFoundError(OpsCoreError):
    code = "not_found"
    status = 404
    title = "Not found"


class AgentNotFoundError(NotFoundError):
    code = "agent_not_found"
    title = "Agent not found"


class WorkflowNotFoundError(NotFoundError):
    code = "workflow_not_found"
    title = "Workflow not found"


class SessionNotFoundError(NotFoundError):
    code = "session_not_found"
    title = "Session not found"


class TaskNotFoundError(NotFoundError):
    code = "task_not_found"
    title = "Task not found"


class MethodNotAllowedError(OpsCoreError):
    code = "method_not_allowed"
    status = 405
    title = "Method not allowed"


class RequestTimeoutError(OpsCoreError):
    code = "request_timeout"
    status = 408
    title = "The request took too long to arrive"


class ConflictError(OpsCoreError):
    """The request is sound but does not fit the present state."""

    code = "conflict"
    status = 409
    title = "Conflict"


class IdempotencyInProgressError(ConflictError):
    code = "idempotency_in_progress"
    title = "A request with this Idempotency-Key is in progress"


class PayloadTooLargeError(OpsCoreError):
    code = "payload_too_large"
    status = 413
    title = "Payload too large"


class UnsupportedMediaTypeError(OpsCoreError):
    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class ValidationError(OpsCoreError):
    """A document was read and found wrong; `faults` says where and why, all at once."""

    code = "validation_error"
    status = 422
    title = "Validation failed"


class InvalidWorkflowError(ValidationError):
    code = "invalid_workflow"
    title = "The workflow definition is not valid"


class AgentRequiredError(ValidationError):
    """A session without an agent was to run steps that name neither agent nor capability."""

    code = "agent_required"
    title = "Steps of the workflow need an agent"


class IdempotencyMismatchError(ValidationError):
    code = "idempotency_mismatch"
    title = "This Idempotency-Key was used with another request"


class ForbiddenEndpointError(ValidationError):
    """A contact endpoint names an address that Ops-Core must not call."""

    code = "forbidden_endpoint"
    title = "The contact endpoint is not allowed"


class TooManyRequestsError(OpsCoreError):
    code = "too_many_requests"
    status = 429
    title = "Too many requests"


class HeadersTooLargeError(OpsCoreError):
    code = "headers_too_large"
    status = 431
    title = "Request headers too large"


class UnsupportedTransferCodingError(OpsCoreError):
    code = "unsupported_transfer_coding"
    status = 501
    title = "Transfer coding not supported"


# --- the service cannot, for now -------------------------------------------------------------


class UnavailableError(OpsCoreError):
    code = "unavailable"
    status = 503
    title = "Service unavailable"


class QueueFullError(UnavailableError):
    code = "queue_full"
    title = "The queue is full"


class DrainingError(UnavailableError):
    code = "draining"
    title = "The service is shutting down"


class ExportInProgressError(UnavailableError):
    code = "export_in_progress"
    title = "Another export is in progress"


class StorageError(UnavailableError):
    """The storage did not answer in time or refused; the same request may work later."""

    code = "storage_unavailable"
    title = "Storage unavailable"


# --- signals between storage and engine; the API never sees them -----------------------------


class VersionConflictError(OpsCoreError):
    """A record changed between the read and the write: read again and decide again."""

    code = "version_conflict"
    status = 503
    title = "The record kept changing"


class WebhookReplayedError(OpsCoreError):
    """This very webhook was applied before."""

    code = "webhook_replayed"
    status = 200
    title = "Duplicate webhook"


class IdempotencyKeyUsedError(OpsCoreError):
    """Another request stored this Idempotency-Key first."""

    code = "idempotency_key_used"
    status = 409
    title = "Idempotency-Key already used"
