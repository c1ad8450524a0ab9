"""The types of the API as JSON Schema, and whole examples put together from the examples of their fields.

The schemas are msgspec's and not Litestar's: msgspec reads and writes the bodies, so what it says of them is true;
Litestar's leave out docstrings, the limits of optional fields, and what naive times are.
"""

import json
from collections.abc import Iterable
from inspect import cleandoc
from typing import Any

import msgspec

PREFIX = "#/components/schemas/"
_PLAIN = {"string": "text", "integer": 1, "number": 1.0, "boolean": True, "object": {}, "array": []}

JSONSchema = dict[str, Any]


class Schemas:
    """``components`` has the schema of each type and of everything it refers to, by name."""

    def __init__(self, types: Iterable[type]) -> None:
        ordered = sorted(types, key=lambda one: f"{one.__module__}.{one.__qualname__}")
        references, components = msgspec.json.schema_components(ordered, ref_template=PREFIX + "{name}")
        # two types of one name come with their modules: domain.results.summary.Summary
        names = {name: _short(name) for name in components}
        self.components = {names[name]: _tidy(schema, names) for name, schema in components.items()}
        self._references = {one: _tidy(reference, names) for one, reference in zip(ordered, references, strict=True)}

    def reference(self, one: type | JSONSchema) -> JSONSchema:
        """What stands for the type in a body; JSON Schema is returned as it is."""
        return one if isinstance(one, dict) else self._references[one]

    def resolved(self, schema: JSONSchema) -> JSONSchema:
        name = schema.get("$ref", "").removeprefix(PREFIX)
        return self.components[name] if name else schema

    def example(self, schema: JSONSchema) -> Any:
        """An example of the whole, from those of the fields; optional fields come in only with one of their own."""
        if "examples" in schema:
            return schema["examples"][0]
        if "$ref" in schema:
            return self.example(self.resolved(schema))
        for choice in schema.get("anyOf", ()):
            return self.example(choice)
        if "enum" in schema:
            return schema["enum"][0]
        if "properties" in schema:
            needed = schema.get("required", [])
            return {
                name: self.example(one)
                for name, one in schema["properties"].items()
                if name in needed or self._has_example(one)
            }
        if "items" in schema:
            return [self.example(schema["items"])]
        return _PLAIN[schema["type"]]

    def _has_example(self, schema: JSONSchema) -> bool:
        return "examples" in schema or any("examples" in choice for choice in schema.get("anyOf", ()))


def sentence(type_or_schema: JSONSchema) -> str:
    """The first sentence of a description."""
    text: str = type_or_schema.get("description", "").split("\n\n")[0].replace("\n", " ")
    return text.partition("; ")[0].partition(". ")[0].rstrip(".")


def _short(name: str) -> str:
    words = name.split(".")
    return name if len(words) == 1 else f"{words[1]}.{words[-1]}"  # floor.capability.module.Type


def _tidy(value: Any, names: dict[str, str]) -> Any:
    """Docstrings without their indentation and reStructuredText's double back quotes; short names in references."""
    if isinstance(value, list):
        return [_tidy(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    tidy = {key: _tidy(one, names) if key != "examples" else one for key, one in value.items()}
    if isinstance(text := tidy.get("description"), str):
        tidy["description"] = cleandoc(text).replace("``", "`")
    if isinstance(target := tidy.get("$ref"), str):
        name = target.removeprefix(PREFIX)
        tidy["$ref"] = PREFIX + names.get(name, name)
    return tidy


def pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
