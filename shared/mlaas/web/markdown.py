"""Model cards as HTML: the Markdown of people and models whom nobody here knows, without HTML of its own, pictures or odd links."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

__all__ = ["render"]

_FRONT_MATTER = re.compile(r"\A---\r?\n.*?\r?\n---\r?\n", re.S)
_TITLE = re.compile(r"\A\s*#[^#\n].*\n")
_PICTURE = re.compile(r"^!\[[^\]\n]*\]\([^)\n]*\)\s*$", re.M)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.I)
_OPEN = '<div class="scroll" tabindex="0" role="region" aria-label="Table of the card"><table>'


def render(text: str) -> Markup:
    """`text` as HTML that may stand in a page. Its YAML, title and pictures are left out, for the page has them itself."""
    body = _PICTURE.sub("", _TITLE.sub("", _FRONT_MATTER.sub("", text)))
    return Markup(_parser().render(body))  # noqa: S704 - HTML is off: the parser escapes everything


@lru_cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable(["image", "autolink"])
    parser.validateLink = _is_harmless  # type: ignore[method-assign]
    rules = {
        "heading_open": lambda _, tokens, at, *__: f"<{_lowered(tokens[at].tag)}>",
        "heading_close": lambda _, tokens, at, *__: f"</{_lowered(tokens[at].tag)}>\n",
        "table_open": lambda *_: _OPEN,
        "table_close": lambda *_: "</table></div>",
        "link_open": _link,
    }
    for name, write in rules.items():
        parser.add_render_rule(name, write)
    return parser


def _is_harmless(url: str) -> bool:
    return url.lower().startswith(("https://", "http://", "mailto:", "#")) or not _SCHEME.match(url.strip())


def _lowered(tag: str) -> str:
    """A card's headings stand one level below where they were: the page has one of its own."""
    return f"h{min(int(tag[1]) + 1, 6)}"


def _link(self: Any, tokens: Any, at: int, options: Any, env: Any) -> str:
    tokens[at].attrSet("rel", "nofollow noopener noreferrer")
    return str(self.renderToken(tokens, at, options, env))
