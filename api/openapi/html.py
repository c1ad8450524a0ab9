"""Pieces of HTML that the pages are made of. Everything that comes in is escaped here."""

import json
import re
from html import escape
from typing import Any

from api.openapi.labels import Labels
from api.openapi.style import STYLE

_STRING = re.compile(r"(&quot;(?:\\.|(?!&quot;).)*?&quot;)(:?)")


def document(title: str, labels: Labels, body: str) -> str:
    return (
        f"<!DOCTYPE html><html lang={labels.language}><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>"
    )


def paragraphs(text: str) -> str:
    return "".join(f"<p>{inline(part)}</p>" for part in (text or "").split("\n\n") if part.strip())


def inline(text: str) -> str:
    """Escaped, with `code` between back quotes."""
    pieces = escape(text or "").split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


def pre(value: Any) -> str:
    """JSON with its keys and texts told apart, or text as it is."""
    if isinstance(value, str):
        return f"<pre tabindex=0>{escape(value.rstrip())}</pre>"
    text = escape(json.dumps(value, indent=2, ensure_ascii=False))
    coloured = _STRING.sub(lambda m: f"<b>{m[1]}</b>:" if m[2] else f"<i>{m[1]}</i>", text)
    return f"<pre tabindex=0>{coloured}</pre>"


def example(title: str, value: Any, *, shown: bool = False) -> str:
    """A block that is folded unless ``shown``."""
    return f"<details class=example{' open' if shown else ''}><summary>{inline(title)}</summary>{pre(value)}</details>"


def anchor(schema: str) -> str:
    return f"schema-{schema}"


def shape(one: dict[str, Any]) -> str:
    """A schema in a few words, with a link to what it refers to."""
    if "$ref" in one:
        name = escape(one["$ref"].rsplit("/", 1)[-1])
        return f"<a href='#{anchor(name)}'>{name}</a>"
    if "contentSchema" in one:
        return f"stream of {shape(one['contentSchema'])}"
    if choices := one.get("anyOf") or one.get("oneOf"):
        return " or ".join(shape(choice) for choice in choices)
    if "enum" in one:
        return " | ".join(f"<code>{escape(json.dumps(value))}</code>" for value in one["enum"])
    kind = one.get("type", "any")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if "items" in one:
        return f"{escape(words)} of {shape(one['items'])}"
    if "contentMediaType" in one:
        return "bytes"
    bounds = [
        _range(one.get("minimum"), one.get("maximum"), ""),
        _range(one.get("minLength"), one.get("maxLength"), "long"),
    ]
    return escape(", ".join([one.get("format") or words, *filter(None, bounds)]))


def _range(least: float | None, most: float | None, what: str) -> str:
    if least is None and most is None:
        return ""
    if least is None or most is None:
        text = f"≤ {most:,g}" if least is None else f"≥ {least:,g}"
    else:
        text = f"{least:,g}–{most:,g}"
    return f"{text} {what}".rstrip()


def described(one: dict[str, Any]) -> str:
    """The description of a field, wherever in its schema it stands, and its default."""
    text = one.get("description") or next(
        (choice["description"] for choice in one.get("anyOf", ()) if choice.get("description")), ""
    )
    default = one.get("default")
    if default is None:
        return inline(text)
    return inline(f"{text}{'. ' if text else ''}Default `{json.dumps(default, ensure_ascii=False)}`")
