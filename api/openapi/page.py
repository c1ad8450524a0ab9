"""The pages: plain HTML without a script, so the strictest policy fits.

An operation's id stands inside its folded block: browsers unfold a block when a link leads into it.
"""

import re
from html import escape
from typing import Any

from api.openapi.curl import command
from api.openapi.document import each, resolved
from api.openapi.html import anchor, described, document, example, inline, paragraphs, pre, shape
from api.openapi.labels import Labels, labels
from api.problems import MEDIA_TYPE
from domain.errors import MillraceError, tree
from domain.errors.jobs import StepFailed

Object = dict[str, Any]


def operations(schema: Object, language: str, base: str) -> str:
    """The page of the whole document, one section a tag, one foldable block an operation."""
    words = labels(language)
    known = {tag["name"]: tag.get("description", "") for tag in schema["tags"]}
    sections: dict[str, list[tuple[str, str, Object]]] = {name: [] for name in known}
    for path, method, operation in each(schema):
        sections[operation["tags"][0]].append((path, method, operation))
    info = schema["info"]
    contents, blocks = [], []
    for name, found in sections.items():
        if not found:
            continue
        heading, text = words.tags.get(name, (name, known[name]))
        mark = name.replace(" ", "-")
        contents += [f"<h2><a href='#{mark}'>{escape(heading)}</a></h2><div class=list lang=en><ul>"]
        contents += [f"<li><a href='#{one['operationId']}'>{escape(one['summary'])}</a>" for _, _, one in found]
        contents += ["</ul></div>"]
        blocks += [f"<section><h2 id='{mark}'>{escape(heading)}</h2>{paragraphs(text)}"]
        blocks += [_operation(schema, base, words, *one) for one in found]
        blocks += ["</section>"]
    contents.append(f"<h2><a href='#schemas'>{words.schemas}</a></h2>")
    blocks += [f"<section><h2 id=schemas>{words.schemas}</h2>{paragraphs(words.schemas_note)}"]
    blocks += [_schema(words, name, one) for name, one in sorted(schema["components"]["schemas"].items())]
    return document(
        info["title"],
        words,
        f"<div class=page><nav aria-label='{words.contents}'>{''.join(contents)}</nav><main>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"{paragraphs(words.introduction or info['description'])}"
        f"<p><a href='/docs/openapi.json'>{words.document}</a> · <a href='/docs/errors'>{words.all_codes}</a></p>"
        f"{''.join(blocks)}</section></main></div>",
    )


def errors(language: str) -> str:
    """The page of all error codes, in both languages."""
    words = labels(language)
    of_requests = [error for error in tree() if not issubclass(error, StepFailed)]
    of_jobs = list(tree(StepFailed))
    head = f"<thead><tr><th>{words.code}<th>HTTP<th>{words.meaning}</thead>"
    parts = [f"<h1>{words.errors}</h1><p><a href='/docs'>{words.back}</a></p>{paragraphs(words.errors_note)}"]
    for heading, found in ((words.of_requests, of_requests), (words.of_jobs, of_jobs)):
        rows = "".join(_error(words, error) for error in found)
        parts.append(f"<h2>{heading}</h2><table>{head}<tbody>{rows}</tbody></table>")
    return document(f"Millrace: {words.errors}", words, f"<main class=alone>{''.join(parts)}</main>")


def _error(words: Labels, error: type[MillraceError]) -> str:
    english, russian = (error.__doc__ or "").strip(), error.ru
    first, second = (russian, english) if words.language == "ru" else (english, russian)
    other = "en" if words.language == "ru" else "ru"
    again = f"<span class=note title='{words.retryable_note}'> · {words.retryable}</span>" if error.retryable else ""
    return (
        f"<tr id='{error.code}'><th scope=row><code>{error.code}</code><td class=status>{error.status}"
        f"<td>{_filled_in(first)}{again}<span class=other lang={other}>{_filled_in(second)}</span>"
    )


def _filled_in(text: str) -> str:
    return re.sub(r"\{(\w+)(?:!r)?\}", r"<var>\1</var>", inline(text))


def _operation(schema: Object, base: str, words: Labels, path: str, method: str, operation: Object) -> str:
    schemes = (operation.get("security") or schema["security"])[0]
    needed = words.own_access if "mlService" in schemes else words.access if schemes else ""
    parts = [
        f"<details class=block><summary><span class='method {method}'>{method.upper()}</span>"
        f"<span class=path>{escape(path)}</span>"
        f"<span class=says lang=en>{escape(operation['summary'])}</span></summary>"
        f"<div class=inside id='{escape(operation['operationId'])}'>{paragraphs(operation['description'])}",
        f"<p class=token>{needed}</p>" if needed else "",
        pre(command(schema, base, path, method, operation)),
    ]
    if parameters := operation.get("parameters"):
        rows = "".join(
            f"<tr><th scope=row><code>{escape(one['name'])}</code> <span class=note>{one['in']}"
            f"{', ' + words.required if one.get('required') else ''}</span><td class=type>{shape(one['schema'])}"
            f"<td>{described({**one['schema'], 'description': one.get('description', '')})}"
            for one in parameters
        )
        parts.append(f"<h4>{words.parameters}</h4><table><tbody>{rows}</tbody></table>")
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>{words.body}</h4>{_content(words, media, content, shown=True)}")
    parts += [f"<h4>{words.answers}</h4><table class=answers><tbody>", *_answers(schema, words, operation)]
    return "".join([*parts, "</tbody></table></div></details>"])


def _answers(schema: Object, words: Labels, operation: Object) -> list[str]:
    rows = []
    for status, reference in operation["responses"].items():
        response = resolved(reference, schema)
        problem = status.startswith(("4", "5")) and "examples" in response["content"].get(MEDIA_TYPE, {})
        parts = [_problems(response) if problem else inline(response.get("description", ""))]
        for name, header in response.get("headers", {}).items():
            parts.append(f"<div class=note><code>{escape(name)}</code> {inline(header['description'])}</div>")
        for media, content in response.get("content", {}).items() if not problem else ():
            parts.append(_content(words, media, content, shown=media.startswith("text/")))
        rows.append(f"<tr><th scope=row>{status}<td>{''.join(parts)}")
    return rows


def _problems(response: Object) -> str:
    """The sentences of the errors; the whole problem looks the same everywhere, see the schema."""
    found = [one["value"] for content in response["content"].values() for one in content["examples"].values()]
    return "".join(
        f"<div><a href='/docs/errors#{one['code']}'><code>{one['code']}</code></a> <span class=note>"
        f"{inline('`' + one['field'] + '`: ' if 'field' in one else '')}{inline(one['detail'])}</span></div>"
        for one in found
    )


def _content(words: Labels, media: str, content: Object, *, shown: bool) -> str:
    parts = [f"<div><code>{escape(media)}</code> {shape(content['schema'])}</div>"]
    if "properties" in content["schema"]:
        parts.append(_fields(words, content["schema"]))
    for name, one in content.get("examples", {}).items():
        if not (isinstance(one["value"], str) and one["value"].startswith("@")):
            title = one.get("summary") or words.example
            parts.append(example(words.example if name == "example" else title, one["value"], shown=shown))
    return "".join(parts)


def _schema(words: Labels, name: str, one: Object) -> str:
    inside = _fields(words, one) if "properties" in one else f"<p>{shape(one)}</p>"
    text = paragraphs(one.get("description", ""))
    return (
        f"<details class=block><summary><span class=path>{escape(name)}</span></summary>"
        f"<div class=inside id='{anchor(escape(name))}'>{text}{inside}</div></details>"
    )


def _fields(words: Labels, one: Object) -> str:
    required = one.get("required", [])
    rows = "".join(
        f"<tr><th scope=row><code>{escape(field)}</code>"
        f"{f' <span class=note>{words.required}</span>' if field in required else ''}"
        f"<td class=type>{shape(inner)}<td>{described(inner)}"
        for field, inner in one["properties"].items()
    )
    return f"<table><tbody>{rows}</tbody></table>"
