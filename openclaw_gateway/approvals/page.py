"""The approval page as HTML: sign-in, review, result, trouble. No script, no image, nothing from anywhere else.

Pure: values in, bytes out. Owns the words, the style and the headers of the page. It must not know who was admitted
nor what is decided. Invariants: every text that is not this module's own goes through `_text`, which escapes what HTML
takes for markup and what is not printable (control characters, and bidi marks that would turn a name around), and a
name stands in an element of its own direction; no credential is ever written; the one style is named by its hash, so
that the content security policy allows nothing else; the page cannot be framed.
"""

from __future__ import annotations

import base64
import hashlib
import html
import time
from collections.abc import Mapping
from typing import Final

from openclaw_gateway.approvals.review import Moment, Review
from openclaw_gateway.ops.log import escape

__all__ = ["CONTENT_TYPE", "HEADERS", "found_nothing", "review", "settled", "sign_in", "trouble"]

CONTENT_TYPE: Final = b"text/html; charset=utf-8"
_MAX_TEXT: Final = 400
_MAX_FIX: Final = 2000
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1a1d21;--dim:#545c66;--line:#cdd3da;--card:#fff;--back:#f2f4f6;--go:#0b63ce;
--goink:#fff;--stop:#b3261e;--mark:#fff1d6;--markink:#6b3d00}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--dim:#a9b1bb;--line:#414852;--card:#1d2126;--back:#121518;
--go:#8ab8ff;--goink:#06203f;--stop:#ffa29b;--mark:#3d2f12;--markink:#ffd796}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:36rem;margin:0 auto;padding:1.25rem 1rem 2.5rem}
.gw{color:var(--dim);font-size:.9rem;margin:0 0 .5rem}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1rem;margin:0 0 1rem}
section>:first-child{margin-top:0}section>:last-child{margin-bottom:0}
label,h2{display:block;font-weight:600;font-size:1rem;margin:1rem 0 .25rem}
input,button{font:inherit;width:100%;min-height:2.9rem;border-radius:.5rem;padding:.5rem .75rem}
input{border:1px solid var(--dim);background:var(--back);color:inherit}
button{border:2px solid var(--go);background:var(--go);color:var(--goink);font-weight:600;cursor:pointer;
margin-top:1rem}
.no{background:none;border-color:var(--stop);color:var(--stop)}
:focus-visible{outline:3px solid var(--go);outline-offset:2px}
dl{display:grid;grid-template-columns:7.5rem 1fr;gap:.4rem .75rem;margin:0}
dt,.dim{color:var(--dim)}dd{margin:0}.dim{font-size:.9rem;margin:.25rem 0 0}.cmp{margin-top:.9rem}
ul+.dim{margin-top:.5rem}
code{font-family:ui-monospace,monospace;font-size:.9em}
ul{list-style:none;padding:0;margin:.25rem 0 0;display:flex;flex-wrap:wrap;gap:.4rem}
li{border:1px solid var(--line);border-radius:.4rem;padding:.1rem .45rem}
.far,.warn{background:var(--mark);color:var(--markink);border-color:currentColor}
.warn{border-radius:.5rem;padding:.6rem .75rem;margin:0 0 1rem}
pre{white-space:pre-wrap;background:var(--back);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .75rem}
.two{display:grid;grid-template-columns:1fr 1fr;gap:.75rem}.two button{margin:0}
@media(max-width:26rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}
""".strip()
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest())

HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'sha256-" + _STYLE_HASH + b"'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    # Not no-referrer: a browser would send the form with "Origin: null" then (WHATWG Fetch, appending an Origin
    # header), and what tells it from a foreign page's form would be gone. To other origins nothing is sent either way.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


def sign_in(request: str, *, asks: str | None, needed: bool = True, alert: str = "", fix: str = "") -> bytes:
    """The first page, the same for every request. ``asks``: what to type as a credential, None: nothing; ``needed``
    False: this peer may come in without it, too. ``alert`` and ``fix``: what went wrong before, and what helps."""
    typed = "" if needed else f'<p class="dim">{_TOLD}</p>'
    if asks is not None:
        shows = "openclaw gateway auth-token --show" if asks != "API key" else _KEY
        label = asks if needed else f"{asks}, if that does not let you in"
        typed += (
            f'<label for="secret">{_text(label)}</label>'
            '<input id="secret" name="secret" type="password" autocomplete="current-password" '
            f'aria-describedby="hint"{" required autofocus" if needed else ""}>'
            f'<p class="dim" id="hint">Shown on the host of the gateway by: <code>{shows}</code></p>'
        )
    form = (
        f"<section><p>A device asked to be let in. Prove who you are to see what it asks for, then decide.</p>"
        f'<form method="post" action="approve"><label for="request">Request</label>'
        f'<input id="request" name="request" value="{_text(request)}" maxlength="128" required autocomplete="off" '
        f'autocapitalize="none" spellcheck="false">{typed}'
        '<button name="step" value="show">Show the request</button></form></section>'
    )
    return _page("Approve a device", _alert(alert, fix) + form)


def review(shown: Review, tickets: Mapping[str, str], *, who: str | None = None) -> bytes:
    """What is asked for, with the two buttons. ``tickets``: the tokens of the steps approve and reject."""
    facts = "".join(f"<dt>{label}</dt><dd>{_fact(label, value)}</dd>" for label, value in shown.facts)
    grants = "".join(
        f"<h2>{label}</h2><ul>{''.join(_granted(name, name in shown.far) for name in names)}</ul>"
        + (_MARKED if label == "Commands" and shown.far.intersection(names) else "")
        for label, names in shown.grants
    )
    note = f"<p>{_text(shown.note)}</p>" if shown.note else ""
    where = " (<code>openclaw node status</code>)" if shown.role == "node" else ""
    compare = (
        '<p class="dim cmp">Approve only what you expect: the device id must be the one that the device itself shows'
        f"{where}.</p>"
    )
    buttons = (
        f'<div class="two">{_button(shown.request_id, "reject", tickets, "Reject", kind="no")}'
        f"{_button(shown.request_id, 'approve', tickets, 'Approve')}</div>"
    )
    decides = f'<p class="dim">You decide as <bdi>{_text(who)}</bdi>.</p>' if who else ""
    body = f'<p class="warn">{_text(shown.warning)}</p><section>{note}<dl>{facts}</dl>{compare}</section>'
    body += (f"<section>{grants}</section>" if grants else "") + buttons + decides
    heading = f"“<bdi>{_text(shown.name)}</bdi>” {_text(shown.title)}"
    return _page(f"“{shown.name}” {shown.title}", body, heading)


def settled(
    title: str,
    text: str,
    *,
    name: str = "",
    request: str = "",
    tickets: Mapping[str, str] | None = None,
    command: str = "",
) -> bytes:
    """What came of it; with a ``name`` the text goes on from there. With ``tickets`` for the step next there is a
    button that leads on; ``command``: what helps."""
    named = f"<strong><bdi>{_text(name)}</bdi></strong> " if name else ""
    lead = _button(request, "next", tickets, "See which commands it offers") if tickets is not None else ""
    told = f"<pre><code>{_text(command)}</code></pre>" if command else ""
    return _page(title, f'<section role="status"><p>{named}{_text(text)}</p>{told}</section>{lead}')


def found_nothing(name: str, request: str, tickets: Mapping[str, str]) -> bytes:
    """A node that has not come back yet, with the button to look again."""
    text = (
        '<section role="status"><p>It has not told yet which commands it offers. A node comes back by itself, within '
        "15 seconds of its approval.</p></section>"
    )
    heading = f"Waiting for “<bdi>{_text(name)}</bdi>”"
    return _page(f"Waiting for “{name}”", text + _button(request, "next", tickets, "Look again"), heading)


def trouble(title: str, text: str, fix: str = "") -> bytes:
    """Something cannot be done here: what happened, and the one command that helps."""
    return _page(title, _alert(text, fix))


_TOLD: Final = "You need no secret here: the gateway is told who you are."
_MARKED: Final = '<p class="dim">Those marked can run programs there or reach its files.</p>'
_KEY: Final = "openclaw tokens create approvals --scope admin --expires 30d"


def _text(text: str, limit: int = _MAX_TEXT) -> str:
    return html.escape(escape(text, limit))


def _fact(label: str, value: str | Moment) -> str:
    if isinstance(value, Moment):
        when = time.gmtime(value.at_ms / 1000)
        utc = time.strftime("%Y-%m-%d %H:%M:%S UTC", when)
        return f'<time datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", when)}" title="{utc}">{value.words}</time>'
    if label in {"Fingerprint", "End-to-end key"}:
        return f"<code>{_text(value).replace(':', ':<wbr>')}</code>"
    if label in {"Device id", "Address"}:
        return f"<code>{_text(value)}</code>"
    return f"<bdi>{_text(value)}</bdi>"


def _granted(name: str, far: bool) -> str:
    mark = ' class="far"' if far else ""
    return f"<li{mark}><code>{_text(name)}</code></li>"


def _button(request: str, step: str, tickets: Mapping[str, str], text: str, *, kind: str = "go") -> str:
    return (
        '<form method="post" action="approve">'
        f'<input type="hidden" name="request" value="{_text(request)}">'
        f'<input type="hidden" name="ticket" value="{_text(tickets[step])}">'
        f'<button class="{kind}" name="step" value="{step}">{text}</button></form>'
    )


def _alert(text: str, fix: str) -> str:
    if not text:
        return ""
    told = f"<pre><code>{_text(fix, _MAX_FIX)}</code></pre>" if fix else ""
    return f'<section role="alert"><p><strong>{_text(text)}</strong></p>{told}</section>'


def _page(title: str, body: str, heading: str | None = None) -> bytes:
    shown = heading if heading is not None else _text(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="robots" content="noindex"><meta name="color-scheme" content="light dark">'
        f"<title>{_text(title)} · OpenClaw Gateway</title><style>{_STYLE}</style></head>"
        f'<body><main><p class="gw">OpenClaw Gateway</p><h1>{shown}</h1>{body}</main></body></html>'
    ).encode()
