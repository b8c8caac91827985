"""What simulated agents make of a task. The same parameters always give the same result."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Parameters = Mapping[str, Any]


def perform(capabilities: Sequence[str], parameters: Parameters) -> Any:
    """The work of the first capability that has one; otherwise the parameters come back."""
    for capability in capabilities:
        if work := _WORKS.get(capability):
            return work(parameters)
    return {"echo": dict(parameters)}


def research(parameters: Parameters) -> dict[str, Any]:
    topic = _topic(parameters)
    slug = "-".join(topic.lower().split())
    return {
        "topic": topic,
        "urls": [f"https://{site}.example/{slug}" for site in ("atlas", "almanac", "journal")],
        "notes": [
            f"{topic}: what is known, in one page",
            f"{topic}: measurements of the last ten years",
            f"{topic}: where the experts disagree",
        ],
    }


def analysis(parameters: Parameters) -> dict[str, Any]:
    notes = [str(note) for note in _listed(parameters.get("notes"))]
    sources = len(_listed(parameters.get("urls")))
    return {
        "topic": _topic(parameters),
        "findings": [f"Finding {n}: {note}" for n, note in enumerate(notes, start=1)],
        "sources": sources,
        "confidence": round(min(0.95, 0.5 + 0.1 * len(notes) + 0.05 * sources), 2),
    }


def writing(parameters: Parameters) -> dict[str, Any]:
    topic = _topic(parameters)
    findings = [str(finding) for finding in _listed(parameters.get("findings"))]
    text = " ".join([f"This brief is about {topic}.", *(f"{finding}." for finding in findings)])
    return {"title": f"A brief on {topic}", "text": text, "words": len(text.split())}


_WORKS: Mapping[str, Callable[[Parameters], Any]] = {
    "research": research,
    "analysis": analysis,
    "writing": writing,
}


def _topic(parameters: Parameters) -> str:
    return str(parameters.get("topic") or "nothing in particular")


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
