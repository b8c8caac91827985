"""As much of Markdown as our own reference pages use, as HTML. Everything is escaped."""

import re
from collections.abc import Iterator
from html import escape

_FENCE = "```"
_HEADING = re.compile(r"(#{1,4}) (.+)")
_INLINE = re.compile(
    r"`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\[(?P<text>[^\]]+)\]\((?P<address>[^)\s]+)\)"
)


def to_html(text: str) -> str:
    """Render headings (each with an anchor), paragraphs, lists and fenced code."""
    return "\n".join(_blocks(text.splitlines()))


def _blocks(lines: list[str]) -> Iterator[str]:
    waiting = iter(lines)
    block: list[str] = []
    for line in waiting:
        if line.startswith(_FENCE):
            yield from _text_block(block)
            block = []
            yield _code(waiting)
        elif heading := _HEADING.fullmatch(line):
            yield from _text_block(block)
            block = []
            yield _heading(len(heading[1]), heading[2])
        elif line:
            block.append(line)
        else:
            yield from _text_block(block)
            block = []
    yield from _text_block(block)


def _code(lines: Iterator[str]) -> str:
    """Take the lines up to the end of the fence."""
    taken: list[str] = []
    for line in lines:
        if line == _FENCE:
            break
        taken.append(line)
    return f"<pre><code>{escape(chr(10).join(taken))}</code></pre>"


def _heading(level: int, text: str) -> str:
    anchor = re.sub(r"[^\w-]", "", text.lower().replace(" ", "-"))
    return f'<h{level} id="{anchor}">{_inline(text)}</h{level}>'


def _text_block(lines: list[str]) -> Iterator[str]:
    """A list if the first line begins an entry, otherwise a paragraph."""
    if not lines:
        return
    if not lines[0].startswith("- "):
        yield f"<p>{_inline(chr(10).join(lines))}</p>"
        return
    entries = re.split(r"^- ", "\n".join(lines), flags=re.MULTILINE)[1:]
    items = "\n".join(f"<li>{_inline(entry.strip())}</li>" for entry in entries)
    yield f"<ul>\n{items}\n</ul>"


def _inline(text: str) -> str:
    parts: list[str] = []
    end = 0
    for found in _INLINE.finditer(text):
        parts += [escape(text[end : found.start()]), _marked(found)]
        end = found.end()
    return "".join([*parts, escape(text[end:])])


def _marked(found: re.Match[str]) -> str:
    if found["code"] is not None:
        return f"<code>{escape(found['code'])}</code>"
    if found["strong"] is not None:
        return f"<strong>{escape(found['strong'])}</strong>"
    # Other pages are not served, so links to them would lead nowhere.
    if not found["address"].startswith(("https://", "#")):
        return escape(found["text"])
    return f'<a href="{escape(found["address"])}">{escape(found["text"])}</a>'
