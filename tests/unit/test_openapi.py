"""The OpenAPI document is whole and every example in it is true; the pages that show it stand by themselves."""

import os
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

from api.app import create_app
from api.openapi import TAGS, document
from api.openapi.schemas import PREFIX, Schemas
from domain.errors import tree
from domain.jobs import Event, JobOrder
from storage.configuration import settings
from tests.json_schema import misfits

Object = dict[str, Any]

STATUS_OF = {error.code: error.status for error in tree()}
NEEDED = {
    "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x",
    "REDIS_URL": "redis://127.0.0.1:1",
    "PUBLIC_URL": "http://millrace.test",
    "S3_ENDPOINT_URL": "http://127.0.0.1:1",
    "S3_ACCESS_KEY_ID": "k",
    "S3_SECRET_ACCESS_KEY": "s",
    "JWT_SECRET": "only for this test, and long enough",
    "ML_SERVICE_URL": "http://127.0.0.1:1",
    "ML_SERVICE_TOKEN": "t" * 16,
    "FLOWER_PASSWORD": "f" * 16,
}


def _made() -> Litestar:
    """The application with every capability, without a server behind it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MILLRACE_MODULES", raising=False)
        for name, value in NEEDED.items():
            patch.setitem(os.environ, name, value)
        settings.cache_clear()
        app = create_app()
    settings.cache_clear()
    document.completed(app.plugins.get("OpenAPIPlugin").provide_openapi_schema(), app)
    return app


APP = _made()
SCHEMA: Object = APP.plugins.get("OpenAPIPlugin").provide_openapi_schema()
COMPONENTS: Object = SCHEMA["components"]["schemas"]
OPERATIONS = {one["operationId"]: (path, method, one) for path, method, one in document.each(SCHEMA)}
every_operation = pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS.values(), ids=OPERATIONS.keys())


def test_the_check_of_examples_finds_what_is_wrong() -> None:
    assert misfits({"username": "an", "password": 8, "extra": 1}, {"$ref": f"{PREFIX}Registration"}, COMPONENTS) == [
        "$: unknown extra",
        "$.username: 'an' is no minLength 3",
        "$.password: 8 is no type 'string'",
    ]


# ---------------------------------------------------------------- every operation


def test_every_route_is_documented() -> None:
    routes = {
        (route.path_format or "/", method.lower())
        for route in APP.routes
        if isinstance(route, HTTPRoute) and route.path != "/" and not route.path.startswith(("/docs", "/console"))
        for method in route.methods - {"OPTIONS"}
    }
    assert routes == {(path, method) for path, method, _ in OPERATIONS.values()}


def test_every_tag_is_described_and_used() -> None:
    assert [tag["name"] for tag in SCHEMA["tags"] if tag["description"]] == list(TAGS)
    assert {operation["tags"][0] for _, _, operation in OPERATIONS.values()} == set(TAGS)


@every_operation
def test_an_operation_says_what_it_does(path: str, method: str, operation: Object) -> None:
    assert len(operation["tags"]) == 1
    assert 4 <= len(operation["summary"]) <= 60
    assert not operation["summary"].endswith(".")
    assert re.search(r"[.:]$|`\.$", operation["description"].strip()), "sentences"
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"])
    for parameter in operation.get("parameters", ()):
        assert parameter["description"], parameter["name"]


@every_operation
def test_a_body_has_examples_that_fit(path: str, method: str, operation: Object) -> None:
    if method in ("get", "head", "delete"):
        assert "requestBody" not in operation
        return
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        assert content["examples"], media
        for one in content["examples"].values():
            assert misfits(one["value"], content["schema"], COMPONENTS) == []


@every_operation
def test_success_has_an_example_that_fits(path: str, method: str, operation: Object) -> None:
    ((status, response),) = [item for item in operation["responses"].items() if item[0] in ("200", "201", "202")] or [
        ("204", operation["responses"]["204"])
    ]
    assert ("content" in response) == (status != "204" and method != "head")
    for media, content in response.get("content", {}).items():
        if "contentMediaType" in content["schema"] and media != "text/event-stream":
            assert {"Content-Disposition", "ETag"} <= response["headers"].keys(), "bytes have no example"
            continue
        assert content["examples"], media
        for one in content["examples"].values():
            assert misfits(one["value"], content["schema"], COMPONENTS) == []


@every_operation
def test_every_error_is_one_of_ours(path: str, method: str, operation: Object) -> None:
    responses = operation["responses"]
    for status, response in responses.items():
        for media, content in response.get("content", {}).items():
            if media != "application/problem+json":
                continue
            for code, one in content["examples"].items():
                assert STATUS_OF[code] == one["value"]["status"] == int(status)
                assert one["value"]["code"] == code
                assert f"`{code}`" in response["description"]
                assert not re.search(r"[{}]", one["value"]["instance"] + one["value"]["detail"])
                assert misfits(one["value"], {"$ref": f"{PREFIX}Problem"}, COMPONENTS) == []
    protected = {} not in operation.get("security", [])
    assert ("401" in responses) == (protected or operation["operationId"] == "login")
    assert ("503" in responses) == (path.startswith("/api/") or path == "/health/ready")
    if "{" in path:
        assert "404" in responses
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        assert {"400", "413", "422"} <= responses.keys()


# ---------------------------------------------------------------- the types behind it


def test_examples_are_read_by_the_types_they_are_of() -> None:
    known = document.types(APP)
    schemas = Schemas(known)
    of = {schemas.reference(one)["$ref"]: one for one in known}
    read = 0
    for _, _, operation in OPERATIONS.values():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (one for body in bodies for one in body.get("content", {}).values()):
            for one in content.get("examples", {}).values() if "$ref" in content["schema"] else ():
                msgspec.convert(one["value"], of[content["schema"]["$ref"]])
                read += 1
    assert read > 150


def test_an_ordered_form_is_read_as_an_order() -> None:
    _, _, operation = OPERATIONS["order_job"]
    ((_, example),) = operation["requestBody"]["content"]["multipart/form-data"]["examples"].items()
    fields = {name: str(value) for name, value in example["value"].items() if name != "file"}
    assert set(fields) == set(JobOrder.__struct_fields__) - {"filename"}
    assert msgspec.convert(fields, JobOrder, strict=False).threshold == 0.5


def test_the_sample_of_the_stream_is_events() -> None:
    _, _, operation = OPERATIONS["stream_events"]
    ((_, example),) = operation["responses"]["200"]["content"]["text/event-stream"]["examples"].items()
    events = [
        msgspec.json.decode(line.removeprefix("data: "), type=Event)
        for line in example["value"].splitlines()
        if line.startswith("data: ")
    ]
    assert len(events) >= 4
    assert [event.seq for event in events if event.type != "progress"] == [1, 2, 3, 4]


def test_no_example_is_a_filler() -> None:
    """A field without an example of its own would be shown as "text"."""
    schemas = Schemas(document.types(APP))
    for name, schema in COMPONENTS.items():
        for field, one in schema.get("properties", {}).items():
            if field not in ("output_object", "error", "current_password"):  # where an example would mislead
                assert schemas.example(one) != "text", f"{name}.{field}"


# ---------------------------------------------------------------- the document


def test_the_document_is_built_as_openapi_31_wants_it() -> None:
    assert re.fullmatch(r"3\.1\.\d", SCHEMA["openapi"])
    assert {"title", "version", "description", "license"} <= SCHEMA["info"].keys()
    schemes = SCHEMA["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    for path, _, operation in OPERATIONS.values():
        assert operation.keys() <= {
            "tags", "summary", "description", "operationId", "parameters", "requestBody", "responses", "security",
            "deprecated",
        }  # fmt: skip
        for requirement in operation.get("security", SCHEMA["security"]):
            assert requirement.keys() <= schemes.keys()
        parameters = operation.get("parameters", [])
        assert len({(one["name"], one["in"]) for one in parameters}) == len(parameters)
        in_path = {one["name"] for one in parameters if one["in"] == "path" and one["required"]}
        assert in_path == set(re.findall(r"\{(\w+)\}", path))
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[2-5]\d\d|default", status)
            assert "$ref" in response or response["description"]
            assert response.keys() <= {"$ref", "description", "headers", "content"}
            for content in response.get("content", {}).values():
                assert content.keys() <= {"schema", "examples"}
    for name in [*COMPONENTS, *SCHEMA["components"]["responses"]]:
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
    for reference in re.findall(r"'\$ref': '([^']+)'", str(SCHEMA)):
        assert document.resolved({"$ref": reference}, SCHEMA)
    msgspec.json.encode(SCHEMA)


def test_every_schema_and_its_bounds_are_said() -> None:
    for name, schema in COMPONENTS.items():
        assert schema.get("description"), name
        assert "``" not in str(schema), name
    threshold = COMPONENTS["JobOrder"]["properties"]["threshold"]["anyOf"][0]
    assert (threshold["minimum"], threshold["maximum"]) == (0, 1)


# ---------------------------------------------------------------- the pages


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.language = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("href", "src", "action") if name in given]
        self.language = given.get("lang", "") if tag == "html" else self.language


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_pages_stand_by_themselves(language: str) -> None:
    client = TestClient(APP)
    pages: dict[str, Page] = {}
    for path in ("/docs", "/docs/errors"):
        answer = client.get(path, headers={"Accept-Language": f"{language}-XX"})
        assert answer.status_code == 200
        assert answer.headers["Content-Language"] == language
        assert answer.headers["Vary"] == "Accept-Language"
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        pages[path] = page = Page(answer.text)
        assert page.language == language
        assert page.tags.isdisjoint({"script", "link", "img", "iframe", "form", "object", "base"})
        assert " style=" not in answer.text
        assert len(set(page.ids)) == len(page.ids)
    for path, page in pages.items():
        for link in page.links:
            target, _, mark = link.partition("#")
            assert target in ("", "/docs", "/docs/errors", "/docs/openapi.json"), "nothing from elsewhere"
            assert not mark or mark in pages[target or path].ids, link


def test_the_page_shows_every_operation_and_every_code() -> None:
    client = TestClient(APP)
    assert OPERATIONS.keys() <= set(Page(client.get("/docs").text).ids)
    assert set(Page(client.get("/docs/errors").text).ids) == STATUS_OF.keys()


def test_a_command_can_be_pasted() -> None:
    page = TestClient(APP).get("/docs").text
    assert (
        "curl http://millrace.test/api/v1/auth/login \\\n"
        "  --json &#x27;{&quot;username&quot;: &quot;anna.petrova&quot;, &quot;password&quot;: "
        "&quot;correct horse battery&quot;}&#x27;"
    ) in page


def test_the_document_is_served_whole() -> None:
    answer = TestClient(APP).get("/docs/openapi.json")
    assert answer.headers["Content-Type"].startswith("application/vnd.oai.openapi+json")
    assert answer.json() == msgspec.json.decode(msgspec.json.encode(SCHEMA))
