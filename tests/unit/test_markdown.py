"""The little of Markdown that our pages use, as HTML."""

import pytest

from opscore.api.markdown import to_html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# A `b` page", '<h1 id="a-b-page">A <code>b</code> page</h1>'),
        ("### bad_request", '<h3 id="bad_request">bad_request</h3>'),
        ("one\ntwo\n\nthree", "<p>one\ntwo</p>\n<p>three</p>"),
        (
            "- one\n  more\n- **two**",
            "<ul>\n<li>one\n  more</li>\n<li><strong>two</strong></li>\n</ul>",
        ),
        (
            '```json\n{"a": `<b>`}\n\n# no\n```\nend',
            "<pre><code>{&quot;a&quot;: `&lt;b&gt;`}\n\n# no</code></pre>\n<p>end</p>",
        ),
        ("[RFC](https://x.example/9)", '<p><a href="https://x.example/9">RFC</a></p>'),
        ("[here](#a)", '<p><a href="#a">here</a></p>'),
        ("see [Settings](settings.md#kept)", "<p>see Settings</p>"),
        ("[x](javascript:alert)", "<p>x</p>"),
        ("`[a](https://b)` <script>", "<p><code>[a](https://b)</code> &lt;script&gt;</p>"),
        ("", ""),
    ],
)
def test_markdown_is_rendered_and_escaped(text: str, html: str) -> None:
    assert to_html(text) == html
