"""Dockerfile, compose.yaml, .env.example and the Procfile agree with each other and with the settings.

No Docker engine is needed: what is read here is what an engine would stumble over.
"""

import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]

from domain import settings
from domain.errors.neighbours import BadSetting
from domain.settings import DEFAULT_SECRETS, Settings
from stack.ml import configuration as ml
from stack.supervisor import read_procfile

ROOT = Path(__file__).parents[2]
FIELDS = {field.name.upper(): field for field in msgspec.structs.fields(Settings)}
ML_FIELDS = {field.name.upper(): field for field in msgspec.structs.fields(ml.Settings)}
SECRETS = ("S3_SECRET_ACCESS_KEY", "JWT_SECRET", "ML_SERVICE_TOKEN", "FLOWER_PASSWORD")
# What the Procfile, `millrace up` and compose.yaml read besides the settings.
OTHERS = {
    "MILLRACE_DATA_DIR": ".millrace",
    "WORKER_CONCURRENCY": "2",
    "PORT": "",
    "FLOWER_PORT": "",
    "ML_PORT": "",
    "POSTGRES_PORT": "",
    "REDIS_PORT": "",
    "S3_PORT": "",
    "MILLRACE_VERSION": "latest",
    "POSTGRES_PASSWORD": "",
    "REDIS_PASSWORD": "",
}
# What our services are given that is no setting: it is for the server or the program they run.
OF_SERVERS = {"FORWARDED_ALLOW_IPS", "REMAP_SIGTERM", "FLOWER_BASIC_AUTH"}

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "api", "worker", "sweeper", "hooks", "beat", "flower")


# ---------------------------------------------------------------- Dockerfile


def _instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def _stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name, with those of the stages it is made from first."""
    stages: dict[str, list[tuple[str, str]]] = {}
    for instruction, arguments in _instructions():
        if instruction == "FROM":
            parent, _, name = arguments.partition(" AS ")
            stages[name] = list(stages.get(parent, []))
            assert parent in stages or parent == "python:3.11-slim", f"{name} is made from an unknown {parent}"
        else:
            stages[list(stages)[-1]].append((instruction, arguments))
    return stages


STAGES = _stages()


def _last(stage: str, instruction: str) -> str:
    return [arguments for name, arguments in STAGES[stage] if name == instruction][-1]


def test_the_image_is_built_from_what_is_there() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for instruction, arguments in _instructions():
        *sources, target = arguments.split()
        if instruction != "COPY":
            continue
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in STAGES
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            copied.add(source)
            if (ROOT / source).is_dir():
                assert target == f"./{source}"  # COPY copies a folder's content, not the folder
    assert copied == let_in


def test_the_image_holds_every_package_of_the_distribution() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name.rstrip("*") for name in tools["packages"]["find"]["include"]}
    folders = {folder.partition("/")[0] for folder in tools["package-dir"].values()}
    packages = packages - set(tools["package-dir"]) | folders
    copied = " ".join(arguments for instruction, arguments in _instructions() if instruction == "COPY").split()
    assert packages <= set(copied)
    assert {f"{module}.py" for module in tools["py-modules"]} <= set(copied)


@pytest.mark.parametrize("stage", ["app", "ml"])
def test_the_process_runs_as_nobody_special_and_as_number_one(stage: str) -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", _last(stage, "USER"))
    assert isinstance(json.loads(_last(stage, "CMD")), list)  # the exec form: signals reach it, not a shell
    check = json.loads(_last(stage, "HEALTHCHECK").split("CMD ", 1)[1])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")


def test_the_image_holds_no_secret() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not [name for name in (*FIELDS, *DEFAULT_SECRETS) if name in text]
    assert "ENV" not in [name for name, arguments in _instructions() if re.search("SECRET|PASSWORD|TOKEN", arguments)]


def test_the_last_stage_is_the_application() -> None:
    assert list(STAGES)[-1] == "app"


# ---------------------------------------------------------------- the same commands everywhere


def _options(command: str, *, placed: tuple[str, ...]) -> list[str]:
    """The words of a command without those that say where it runs: addresses, ports, names, folders."""
    words = iter(re.sub(r"^env \S+=\S+ ", "", command).split())
    kept = []
    for word in words:
        option = word.partition("=")[0]
        if option in placed:
            if "=" not in word:
                next(words)
        else:
            kept.append(word)
    return kept


@pytest.mark.parametrize("name", ["worker", "sweeper", "hooks", "beat", "flower"])
def test_compose_runs_what_the_procfile_runs(name: str) -> None:
    placed = ("-n", "--schedule", "--address", "--port")
    procfile = read_procfile(ROOT / "Procfile")
    assert _options(SERVICES[name]["command"], placed=placed) == _options(procfile[name], placed=placed)
    remapped = "REMAP_SIGTERM=SIGQUIT" in procfile[name]
    assert (SERVICES[name]["environment"].get("REMAP_SIGTERM") == "SIGQUIT") is remapped


@pytest.mark.parametrize(("stage", "name"), [("app", "api"), ("ml", "ml")])
def test_the_image_runs_what_the_procfile_runs(stage: str, name: str) -> None:
    placed = ("--host", "--port")
    command = shlex.join(json.loads(_last(stage, "CMD")))
    assert _options(command, placed=placed) == _options(read_procfile(ROOT / "Procfile")[name], placed=placed)


# ---------------------------------------------------------------- compose.yaml

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class Unset(Exception):
    """A variable that compose would refuse to start without."""


def _interpolated(value: str, variables: Mapping[str, str]) -> str:
    def one(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if kind == "?":
            raise Unset(name)
        return rest or ""

    return _VARIABLE.sub(one, value)


def _environment(service: str, variables: Mapping[str, str]) -> dict[str, str]:
    return {name: _interpolated(str(value), variables) for name, value in SERVICES[service]["environment"].items()}


def _env_file() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _filled() -> dict[str, str]:
    """What a person makes of .env.example."""
    return {
        name: value if name == "S3_ACCESS_KEY_ID" else sha256(name.encode()).hexdigest()
        for name, value in _env_file().items()
    }


@pytest.mark.parametrize("name", OURS)
def test_every_process_is_given_every_setting_and_nothing_unknown(name: str) -> None:
    assert set(SERVICES[name]["environment"]) - OF_SERVERS == set(FIELDS)


@pytest.mark.parametrize("name", OURS)
def test_a_filled_env_file_is_enough(name: str) -> None:
    read = settings.from_environ(_environment(name, _filled()))
    assert read.millrace_env == "production"
    assert read.max_upload_bytes == FIELDS["MAX_UPLOAD_BYTES"].default


def test_the_ml_service_is_given_its_own_settings_only() -> None:
    assert set(SERVICES["ml"]["environment"]) == set(ML_FIELDS)
    assert ml.from_environ(_environment("ml", _filled())).ml_workers == ML_FIELDS["ML_WORKERS"].default


@pytest.mark.parametrize("secret", [*SECRETS, "S3_ACCESS_KEY_ID", "POSTGRES_PASSWORD", "REDIS_PASSWORD"])
def test_nothing_starts_without_a_secret(secret: str) -> None:
    variables = _filled()
    del variables[secret]
    with pytest.raises(Unset, match=secret):
        _environment("api", variables)


@pytest.mark.parametrize("secret", SECRETS)
def test_production_refuses_a_secret_that_is_published_here(secret: str) -> None:
    published = _env_file()[secret]
    assert published in DEFAULT_SECRETS
    with pytest.raises(BadSetting, match=secret):
        settings.from_environ(_environment("api", {**_filled(), secret: published}))


def test_every_variable_of_compose_is_explained() -> None:
    used = {match[1] for match in _VARIABLE.finditer((ROOT / "compose.yaml").read_text())}
    assert used <= set(_documented())


def test_no_literal_secret_stands_in_compose() -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert not [secret for secret in DEFAULT_SECRETS if secret in text]
    for service in SERVICES.values():
        for name, value in service["environment"].items() if "environment" in service else ():
            if re.search("PASSWORD|SECRET|TOKEN|AUTH|_KEY", name):
                assert "${" in value, name


def test_every_port_is_this_machines_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_and_kept_running(name: str) -> None:
    service = SERVICES[name]
    if name == "migrate":
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    if service["healthcheck"]["test"][1:3] == ["python", "-c"]:
        compile(service["healthcheck"]["test"][3], name, "exec")


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_exists_and_can_be_asked(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[other]["healthcheck"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"] == "no"


def test_images_volumes_and_configs_are_named() -> None:
    for service in SERVICES.values():
        if "build" in service:
            assert service["build"]["target"] in STAGES
        else:
            assert re.search(r":v?\d", service["image"])  # a version, never whatever is newest
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"]


# ---------------------------------------------------------------- .env.example


def _documented() -> dict[str, str]:
    """Every variable of .env.example with what stands there, commented or not."""
    found: dict[str, str] = {}
    for line in (ROOT / ".env.example").read_text().splitlines():
        if match := re.fullmatch(r"#?([A-Z][A-Z0-9_]*)=(.*)", line):
            assert match[1] not in found, f"{match[1]} stands there twice"
            found[match[1]] = match[2]
    return found


def test_the_example_names_every_setting_and_no_other() -> None:
    assert set(_documented()) == {*FIELDS, *ML_FIELDS, *OTHERS}


@pytest.mark.parametrize("name", sorted({**ML_FIELDS, **FIELDS}))
def test_the_example_shows_the_default(name: str) -> None:
    field, shown = {**ML_FIELDS, **FIELDS}[name], _documented()[name]
    if name in SECRETS:
        assert shown in DEFAULT_SECRETS
    elif field.required:
        assert shown == "" or name == "S3_ACCESS_KEY_ID"
    else:
        assert msgspec.convert(shown, field.type, strict=False) == field.default


@pytest.mark.parametrize("name", OTHERS)
def test_the_example_shows_what_other_variables_default_to(name: str) -> None:
    assert _documented()[name] == OTHERS[name]


def test_what_has_a_default_is_commented_out() -> None:
    assert set(_env_file()) == {*SECRETS, "S3_ACCESS_KEY_ID", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}


# ---------------------------------------------------------------- nginx


def test_the_proxy_lets_uploads_and_streams_through() -> None:
    text = re.sub(r"#.*", "", (ROOT / "ops/nginx/millrace.conf").read_text())
    assert text.count("{") == text.count("}")
    statements = [line.strip() for line in text.splitlines() if line.strip()]
    assert all(re.search(r"[;{}]\s*$", line) for line in statements)
    assert "proxy_request_buffering off;" in text
    assert "proxy_buffering off;" in text
    assert "$proxy_add_x_forwarded_for" not in text  # with FORWARDED_ALLOW_IPS=* the first address is believed
