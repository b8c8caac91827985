"""How the simulators behave; every field may be changed while they run."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from opscore.simulators.faults import ALL_FAULTS
from opscore.simulators.words import Fault, Forwarding, Style


class Behaviour(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        validate_assignment=True,
        validate_default=True,
    )

    def change(self, patch: Mapping[str, Any]) -> None:
        """Apply all of the patch, or nothing and raise pydantic's ValidationError."""
        changed = type(self).model_validate({**self.model_dump(by_alias=True), **patch})
        for name in type(self).model_fields:
            setattr(self, name, getattr(changed, name))


class AgentKitBehaviour(Behaviour):
    """`loses` is what the real AgentKit of today does: every forward fails and is only logged.

    `fault_rate` is the share of tasks that get a wrong answer, one of `faults` each. A task is
    answered after `slow` and `answer_delay`, and forwarded after `slow` and `forward_delay`.
    """

    forwarding: Forwarding = "works"
    fail_rate: float = Field(0, ge=0, le=1)
    fail_status: int = Field(500, ge=400, le=599)
    retry_after: float | None = Field(None, ge=0)
    fault_rate: float = Field(0, ge=0, le=1)
    faults: tuple[Fault, ...] = Field(ALL_FAULTS, min_length=1)
    late: float = Field(40, ge=0)
    silent: bool = False
    slow: float = Field(0, ge=0)
    answer_delay: float = Field(0, ge=0)
    forward_delay: float = Field(0, ge=0)
    webhook_delay: float = Field(0, ge=0)


class AgentBehaviour(Behaviour):
    """`task_ids`, `works_first` and `reports_first` are what the style says unless they are set.

    `report_delay` passes before each report, as over a network.
    """

    style: Style = "reports"
    task_ids: bool | None = None
    works_first: bool | None = None
    reports_first: bool | None = None
    work_seconds: float = Field(2, ge=0)
    heartbeat_seconds: float = Field(1, gt=0)
    announce: bool = True
    silent: bool = False
    slow_answer: float = Field(0, ge=0)
    report_delay: float = Field(0, ge=0)
    fail_rate: float = Field(0, ge=0, le=1)
    fail_first: int = Field(0, ge=0)
    refuse: bool = False
    crash_after: int | None = Field(None, ge=0)
    concurrency: int | None = Field(None, ge=1)
