"""An agent's Markdown as the little HTML that Telegram knows.

Owns the marks that are carried over: bold, italics, strike-through, code, code blocks, links, headings. Pure.
Everything else stays as it was written.

Invariants: the result holds no tag but ``b i s code pre a``, balanced and not crossing; text is escaped; what looks
like a mark inside code is text.
"""

from __future__ import annotations

import html
import re
from typing import Final

__all__ = ["telegram_html"]

_BLOCK: Final = re.compile(r"```[ \t]*([A-Za-z0-9+#_-]{0,32})[^\S\n]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_CODE: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"\[([^\[\]\n]{1,200})\]\((https?://[^\s()<>\"\0]{1,2000})\)")
_HEADING: Final = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_BOLD: Final = re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*|__(?=\S)([^_\n]+?)(?<=\S)__")
_STRIKE: Final = re.compile(r"~~(?=\S)([^~\n]+?)(?<=\S)~~")
_ITALIC: Final = re.compile(
    r"(?<![\w*])\*(?=\S)([^*\n<>]+?)(?<=\S)\*(?![\w*])|(?<![\w_])_(?=\S)([^_\n<>]+?)(?<=\S)_(?![\w_])"
)


def telegram_html(text: str) -> str:
    """``text`` (CommonMark, as agents write it) for ``parse_mode: HTML``."""
    kept: list[str] = []
    text = text.replace("\0", "")

    def keep(tagged: str) -> str:
        kept.append(tagged)
        return f"\0{len(kept) - 1}\0"

    def block(match: re.Match[str]) -> str:
        return keep(f"<pre>{html.escape(match[2].rstrip(), quote=False)}</pre>")

    def code(match: re.Match[str]) -> str:
        return keep(f"<code>{html.escape(match[1], quote=False)}</code>")

    def link(match: re.Match[str]) -> str:
        return keep(f'<a href="{html.escape(match[2])}">{html.escape(match[1], quote=False)}</a>')

    def heading(match: re.Match[str]) -> str:
        words = _plain(match[1].rstrip(" \t#"))
        return keep(f"<b>{words}</b>") if words else match[0]

    text = _LINK.sub(link, _CODE.sub(code, _BLOCK.sub(block, text)))
    text = html.escape(text, quote=False)
    text = _HEADING.sub(heading, text)
    text = _BOLD.sub(lambda match: keep(f"<b>{_plain(match[1] or match[2])}</b>"), text)
    text = _STRIKE.sub(lambda match: keep(f"<s>{_plain(match[1])}</s>"), text)
    text = _ITALIC.sub(lambda match: keep(f"<i>{_plain(match[1] or match[2])}</i>"), text)
    while "\0" in text:  # what was kept may itself hold what was kept before it
        text = re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text)
    return text


def _plain(text: str) -> str:
    """Inside a mark no other one begins; its signs are left out where they are paired."""
    return re.sub(r"\*\*|__|~~", "", text)
