"""Whether a value fits its JSON Schema, in as much of JSON Schema as the OpenAPI document uses."""

import re
from datetime import datetime
from typing import Any
from uuid import UUID

from api.openapi.schemas import PREFIX

Object = dict[str, Any]


def misfits(value: Any, schema: Object, components: Object, at: str = "$") -> list[str]:
    """Where a value breaks its schema; ``components`` are what it refers to, by name."""
    if "$ref" in schema:
        return misfits(value, components[schema["$ref"].removeprefix(PREFIX)], components, at)
    if "anyOf" in schema:
        tried = [misfits(value, one, components, at) for one in schema["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    for key, check in _CHECKS.items():
        if key in schema and not check(value, schema[key]):
            return [f"{at}: {value!r} is no {key} {schema[key]!r}"]
    wrong: list[str] = []
    if isinstance(value, dict):
        known = schema.get("properties", {})
        wrong += [f"{at}: no {name}" for name in schema.get("required", ()) if name not in value]
        if schema.get("additionalProperties") is False:
            wrong += [f"{at}: unknown {name}" for name in value.keys() - known.keys()]
        for name, inner in value.items():
            further = schema.get("additionalProperties")
            shape = known.get(name, further if isinstance(further, dict) else {})
            wrong += misfits(inner, shape, components, f"{at}.{name}")
    if isinstance(value, list):
        wrong += [text for one in value for text in misfits(one, schema.get("items", {}), components, f"{at}[]")]
    return wrong


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    types: dict[str, Any] = {"integer": int, "number": (int, float), "string": str, "object": dict, "array": list}
    return value is None if kind == "null" else isinstance(value, types.get(kind, ()))


def _has_format(value: str, name: str) -> bool:
    read = {"uuid": UUID, "date-time": datetime.fromisoformat}[name]
    return read(value) is not None  # raises ValueError


_CHECKS: dict[str, Any] = {
    "type": _is,
    "enum": lambda value, choices: value in choices,
    "format": _has_format,
    "minimum": lambda value, least: value >= least,
    "maximum": lambda value, most: value <= most,
    "minLength": lambda value, least: len(value) >= least,
    "maxLength": lambda value, most: len(value) <= most,
    "pattern": lambda value, pattern: re.search(pattern, value) is not None,
}
