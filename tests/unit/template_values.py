"""Definitions for tests: short ways to write them, and a strategy that draws them."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st

from opscore.exceptions import Fault, InvalidWorkflowError
from opscore.models.definition import (
    Backoff,
    Fallback,
    FallbackCapability,
    FallbackResult,
    FallbackTask,
    MessageType,
    RetryPolicy,
    TaskDefinition,
    WorkflowDefinition,
)
from opscore.workflow.templates import load_workflow_template


def document(*tasks: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "w", "tasks": list(tasks) or [{"taskId": "a"}], **fields}


def task(task_id: str = "a", **fields: Any) -> dict[str, Any]:
    return {"taskId": task_id, **fields}


def faults_of(source: Any, **options: Any) -> tuple[Fault, ...]:
    with pytest.raises(InvalidWorkflowError) as caught:
        load_workflow_template(source, **options)
    return caught.value.faults


def places(faults: Iterable[Fault]) -> list[tuple[str, str]]:
    return [(fault.pointer, fault.code) for fault in faults]


_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)
_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    lambda text: bool(text.strip())
)
_longer = st.timedeltas(min_value=timedelta(milliseconds=1), max_value=timedelta(days=30))
_delays = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30))
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0$"), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def _retries(draw: st.DrawFn) -> RetryPolicy:
    first, second = sorted((draw(_delays), draw(_delays)))
    return RetryPolicy(
        max_retries=draw(st.integers(0, 100)),
        backoff=draw(st.sampled_from(Backoff)),
        initial_delay=first,
        max_delay=second,
        jitter=draw(st.booleans()),
        non_retryable=tuple(draw(st.lists(_texts, max_size=3))),
    )


@st.composite
def _tasks(
    draw: st.DrawFn, task_id: str, following: str | None, fallback: Fallback | None
) -> TaskDefinition:
    capability = draw(st.none() | _texts)
    tool = draw(st.none() | _texts)
    return TaskDefinition(
        task_id=task_id,
        name=draw(st.none() | _texts),
        agent_capability=capability,
        agent_id=None if capability is not None else draw(st.none() | _ids),
        message_type=MessageType.WORKFLOW_TASK if tool is None else MessageType.TOOL_INVOCATION,
        tool_name=tool,
        parameters=draw(st.dictionaries(_texts, _values, max_size=3)),
        next_task_id=following,
        priority=draw(st.integers(0, 9)),
        delay=draw(st.none() | _delays),
        timeout=draw(st.none() | _longer),
        start_timeout=draw(st.none() | _delays),
        queue_timeout=draw(st.none() | _longer),
        retry=draw(st.just(RetryPolicy()) | _retries()),
        fallback=fallback,
    )


@st.composite
def definitions(draw: st.DrawFn) -> WorkflowDefinition:
    """Main steps in list order or linked, some of which have a stand-in of their own."""
    ids = draw(st.lists(_ids, min_size=1, max_size=8, unique=True))
    main = ids[: draw(st.integers(1, len(ids)))]
    stand_ins = ids[len(main) :][: len(main)]
    linked = draw(st.booleans())
    tasks = []
    for number, step in enumerate(main):
        following = main[number + 1] if linked and number + 1 < len(main) else None
        fallback: Fallback | None = draw(
            st.none() | st.builds(FallbackCapability, _texts) | st.builds(FallbackResult, _values)
        )
        if number < len(stand_ins):
            fallback = FallbackTask(stand_ins[number])
        tasks.append(draw(_tasks(step, following, fallback)))
    tasks += [draw(_tasks(stand_in, None, None)) for stand_in in stand_ins]
    return WorkflowDefinition(
        id=draw(_ids),
        tasks=tuple(tasks),
        name=draw(st.none() | _texts),
        version=draw(st.none() | _texts),
        description=draw(st.none() | st.just("") | _texts),
        timeout=draw(st.none() | _longer),
    )
