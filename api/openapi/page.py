"""The pages: plain HTML without a script, so the strictest policy fits."""

import base64
import hashlib
import json
from html import escape
from typing import Any

from api.openapi.document import each, is_public, resolved
from domain.errors import tree

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:0 auto;padding:1.5rem}
h1{margin:0}h2{margin:2.2rem 0 .3rem;text-transform:capitalize}h4{margin:.9rem 0 .3rem}
details{border:1px solid var(--line);border-radius:6px;margin:.4rem 0;padding:0 .8rem}
details[open]{padding-bottom:.8rem}summary{cursor:pointer;padding:.5rem 0}
code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:var(--soft);padding:.7rem;border-radius:6px;overflow-x:auto}
.method{display:inline-block;min-width:4.2rem;font-weight:700}
.get{color:#1a7f37}.post{color:#0969da}.put,.patch{color:#9a6700}
.delete{color:#cf222e}.note{opacity:.7}table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line)}
:target{background:#ffd33d33}
"""
_digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def operations(schema: dict[str, Any]) -> str:
    """The page of the whole document, one section a tag, one foldable block an operation."""
    known = {tag["name"]: tag.get("description", "") for tag in schema.get("tags", [])}
    sections: dict[str, list[str]] = {name: [] for name in known}
    for path, method, operation in each(schema):
        block = _operation(schema, path, method, operation)
        sections.setdefault((operation.get("tags") or ["other"])[0], []).append(block)
    info = schema["info"]
    body = [
        f"<h1>{escape(info['title'])} <span class=note>{escape(info['version'])}</span></h1>",
        _text(info.get("description", "")),
        "<p><a href='/docs/openapi.json'>OpenAPI document</a> · <a href='/docs/errors'>All error codes</a></p>",
    ]
    for name, blocks in sections.items():
        if blocks:
            body += [f"<h2 id='{escape(name)}'>{escape(name)}</h2>", _text(known.get(name, "")), *blocks]
    body += ["<h2 id=schemas>Schemas</h2>"]
    body += [_schema(name, one) for name, one in sorted(schema["components"]["schemas"].items())]
    return _html(info["title"], body)


def errors() -> str:
    """The page of all error codes, in both languages."""
    rows = [
        f"<tr id='{error.code}'><td><code>{error.code}</code><td>{error.status}<td>{'yes' if error.retryable else ''}"
        f"<td>{escape((error.__doc__ or '').strip())}<br><span class=note lang=ru>{escape(error.ru)}</span>"
        for error in tree()
    ]
    head = "<table><tr><th>code<th>HTTP<th>retryable<th>meaning"
    note = "<p>The same code stands in a failed job. Words in braces are filled in; <a href='/docs'>the API</a>.</p>"
    return _html("Millrace errors", ["<h1>Error codes</h1>", note, head, *rows, "</table>"])


def _operation(schema: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    lock = "" if is_public(operation) else " <span class=note title='needs an access token'>token</span>"
    parts = [
        f"<details id='{escape(operation.get('operationId', ''))}'><summary><span class='method {method}'>"
        f"{method.upper()}</span><code>{escape(path)}</code> — {escape(operation.get('summary', ''))}{lock}</summary>",
        _text(operation.get("description", "")),
    ]
    if parameters := operation.get("parameters"):
        rows = [
            f"<tr><td><code>{escape(one['name'])}</code><td>{one['in']}{' *' if one.get('required') else ''}"
            f"<td>{_type(one.get('schema', {}))}<td>{escape(one.get('description') or '')}"
            for one in parameters
        ]
        parts += ["<h4>Parameters</h4><table>", *rows, "</table>"]
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Body</h4><p><code>{escape(media)}</code> {_type(content.get('schema', {}))}</p>")
        if "example" in content:
            parts.append(_pre(content["example"]))
    parts += ["<h4>Answers</h4><table>", *_answers(schema, operation), "</table></details>"]
    return "".join(parts)


def _answers(schema: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    rows = []
    for status, reference in operation["responses"].items():
        response = resolved(reference, schema)
        shapes = [
            f"{escape(media)} {_type(one.get('schema', {}))}" for media, one in response.get("content", {}).items()
        ]
        rows.append(f"<tr><td>{status}<td>{_inline(response.get('description', ''))}<td>{'<br>'.join(shapes)}")
    return rows


def _schema(name: str, one: dict[str, Any]) -> str:
    required = one.get("required", [])
    rows = [
        f"<tr><td><code>{escape(field)}</code>{' *' if field in required else ''}<td>{_type(inner)}"
        f"<td>{_inline(inner.get('description', ''))}"
        for field, inner in one.get("properties", {}).items()
    ]
    values = f"<p>{_type(one)}</p>" if not rows else ""
    return (
        f"<details id='schema-{escape(name)}'><summary><code>{escape(name)}</code></summary>"
        f"{_text(one.get('description', ''))}{values}<table>{''.join(rows)}</table></details>"
    )


def _type(one: dict[str, Any]) -> str:
    """A schema in a few words, with a link to what it refers to."""
    if "$ref" in one:
        name = escape(one["$ref"].rsplit("/", 1)[-1])
        return f"<a href='#schema-{name}'>{name}</a>"
    if choices := one.get("oneOf") or one.get("anyOf"):
        return " or ".join(_type(choice) for choice in choices)
    if "enum" in one:
        return " | ".join(f"<code>{escape(json.dumps(value))}</code>" for value in one["enum"])
    kind = one.get("type", "any")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if "items" in one:
        return f"{escape(words)} of {_type(one['items'])}"
    bounds = [
        f"{sign} {one[key]:g}"
        for key, sign in (("minimum", "≥"), ("maximum", "≤"), ("minLength", "length ≥"), ("maxLength", "length ≤"))
        if one.get(key) is not None
    ]
    return escape(", ".join([one.get("format") or words, *bounds]))


def _text(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part.strip())


def _inline(text: str) -> str:
    """Escaped, with `code` between back quotes."""
    pieces = escape(text or "").split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


def _pre(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


def _html(title: str, body: list[str]) -> str:
    return (
        "<!DOCTYPE html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>"
    )
