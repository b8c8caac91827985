"""What every decision is told besides its facts."""

from dataclasses import dataclass, field
from datetime import datetime

from opscore.models import Policy


@dataclass(frozen=True, slots=True)
class Context:
    """`now` is the steady time of deadlines; `wall` is what other machines' times compare to.

    `forwards_proved` says that AgentKit is known to deliver what it accepts.
    """

    now: datetime
    wall: datetime
    policy: Policy = field(default_factory=Policy)
    forwards_proved: bool = False
