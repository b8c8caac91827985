"""The base of all answers."""

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

T = TypeVar("T")


class View(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        # Built when first used: the start of the service does not wait for it.
        defer_build=True,
    )


class ListView(View, Generic[T]):
    """`nextCursor` goes into `cursor` for the next page; null at the end."""

    items: list[T]
    next_cursor: str | None = None


class MessageView(View):
    status: str = "success"
    message: str


class ReportView(MessageView):
    """`counted` is false, with a reason, if the report spoke of work and yet moved no task."""

    counted: bool | None = None
    reason: str | None = None
