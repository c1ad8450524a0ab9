"""An operation as a command that can be pasted into a shell."""

import json
from shlex import quote
from typing import Any

Object = dict[str, Any]
COLUMNS = 90
_TOKENS = {"bearer": "$TOKEN", "mlService": "$ML_SERVICE_TOKEN"}


def command(schema: Object, base: str, path: str, method: str, operation: Object) -> str:
    """``base`` is the address of the API, without a slash at its end."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    content = operation.get("requestBody", {}).get("content", {})
    media = next(iter(content), "")
    examples = list(content.get(media, {}).get("examples", {}).values())
    example = examples[0]["value"] if examples else None
    words = ["curl", *_method(method, media), quote(base + path)]
    schemes = (operation.get("security") or schema["security"])[0]
    words += [f'-H "Authorization: Bearer {_TOKENS[scheme]}"' for scheme in schemes]
    words += _body(media, example)
    answers = [media for one in operation["responses"].values() for media in one.get("content", ())]
    if "text/event-stream" in answers:
        words.insert(1, "-N")
    elif method == "get" and "206" in operation["responses"]:
        words.insert(1, "-OJ")
    return _wrapped(words)


def _wrapped(words: list[str]) -> str:
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) > COLUMNS:
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)


def _method(method: str, media: str) -> list[str]:
    if method == "head":
        return ["-I"]
    implied = "post" if media else "get"
    return [] if method == implied else ["-X", method.upper()]


def _body(media: str, example: Any) -> list[str]:
    if media == "application/json":
        return ["--json " + quote(json.dumps(example, ensure_ascii=False))]
    if media == "multipart/form-data":
        return [f"-F {quote(f'{name}={value}')}" for name, value in example.items()]
    if media == "application/x-www-form-urlencoded":
        return [f"--data-urlencode {quote(f'{name}={value}')}" for name, value in example.items()]
    return [f"--data-binary {quote(example)}"] if media else []
