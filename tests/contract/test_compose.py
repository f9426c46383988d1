"""docker-compose.yml, the Dockerfile and .env.example agree with the code: commands, settings, ports, versions, no secrets."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.kafka_jars import KAFKA_VERSION
from adapters.settings import Settings
from bellbuoy import env_example
from bellbuoy.cli.main import COMMANDS, PROCESSES, load

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONCE = {name for name, service in OURS.items() if service["restart"] == "no"}
DOCKERFILE = (ROOT / "infra" / "docker" / "Dockerfile").read_text()
MLFLOWS_OWN = {"MLFLOW_SERVER_ALLOWED_HOSTS"}
LISTENING = {"collector", "gateway", "page", "mlflow", "sandbox"}


def interpolated(value: str) -> str:
    """A value as compose fills it in where .env names nothing but what it must."""
    return re.sub(r"\$\{(\w+)(?::([-?])([^}]*))?\}", lambda m: m[3] if m[2] == "-" else "given", value)


def test_env_example_is_current() -> None:
    assert env_example.FILE.read_text() == env_example.text()


def test_env_example_names_every_setting_with_its_default_and_description() -> None:
    text = env_example.FILE.read_text()
    for name, field in Settings.model_fields.items():
        variable = field.validation_alias or f"BELLBUOY_{name.upper()}"
        default = "" if field.default is None else field.default
        assert field.description
        assert f"\n# {field.description}\n# {variable}={default}\n" in text


def test_env_example_with_every_line_taken_in_gives_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in env_example.variables():
        monkeypatch.delenv(name, raising=False)
    defaults = Settings()
    for name, value in re.findall(r"^# ([A-Z_]+)=(.*)$", env_example.FILE.read_text(), re.M):
        monkeypatch.setenv(name, value)
    assert Settings() == defaults


def test_every_variable_that_compose_fills_in_is_in_env_example() -> None:
    named = set(re.findall(r"^# ([A-Z_]+)=", env_example.FILE.read_text(), re.M))
    assert set(re.findall(r"\$\{(\w+)", TEXT)) <= named


def test_every_process_is_a_service_but_those_that_a_server_stands_for() -> None:
    processes = {name for name, entry in COMMANDS.items() if entry.panel == PROCESSES}
    assert set(OURS) - ONCE == processes - {"broker", "store"}


@pytest.mark.parametrize("name", OURS)
def test_the_command_of_a_service_is_one_of_ours_with_options_that_it_has(name: str) -> None:
    first, *rest = OURS[name]["command"]
    assert first in COMMANDS
    if name not in ONCE:
        assert name == first
    if not rest:
        return
    command = load(first)
    while rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert set(rest) <= options


@pytest.mark.parametrize("name", OURS)
def test_the_environment_of_a_service_is_made_of_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = OURS[name]["environment"]
    assert set(environment) <= set(env_example.variables()) | MLFLOWS_OWN
    for variable, value in environment.items():
        assert isinstance(value, str), f"{variable} is no text"
        monkeypatch.setenv(variable, interpolated(value))
    settings = Settings()
    assert settings.host == "0.0.0.0"
    assert not settings.embedded_kafka


def test_every_secret_comes_from_the_env_file() -> None:
    secret = {
        str(f.validation_alias or f"BELLBUOY_{name.upper()}")
        for name, f in Settings.model_fields.items()
        if "SecretStr" in str(f.annotation)
    }
    assert "BELLBUOY_API_KEY" in secret
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if variable in secret or re.search(r"PASSWORD|SECRET|TOKEN", variable):
                assert re.search(r"\$\{\w+:\?", value), f"{variable} is written out"
    assert not re.search(r"://[^/\s:@]+:(?!\$\{)[^/\s@]*@", TEXT), "a password in an address"


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].partition(":")
    assert re.match(r"\d+\.\d+", tag)


def test_kafka_is_the_version_that_is_embedded() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_kafka_is_set_up_as_the_embedded_broker_is() -> None:
    different = {"listeners", "advertised.listeners", "controller.quorum.bootstrap.servers", "log.dirs", "message.max.bytes"}
    tuned = (
        "num.",
        "background.",
        "log.cleaner.",
        "broker.session.",
        "broker.heartbeat.",
        "offsets.topic.num",
        "transaction.state.log.num",
    )
    lines = (ROOT / "infra" / "kafka" / "server.properties").read_text().splitlines()
    embedded = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    for name, value in embedded.items():
        if name not in different and not name.startswith(tuned):
            assert SERVICES["kafka"]["environment"][f"KAFKA_{name.upper().replace('.', '_')}"] == value


@pytest.mark.parametrize("name", sorted(set(OURS) - ONCE))
def test_a_process_is_probed_at_the_port_where_it_serves_its_health(name: str) -> None:
    port = OURS[name]["environment"]["BELLBUOY_HEALTH_PORT"]
    assert f"http://127.0.0.1:{port}/ready" in OURS[name]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", SERVICES)
def test_only_ports_that_the_process_listens_on_are_open_and_on_this_machine_only(name: str) -> None:
    for published in SERVICES[name].get("ports", []):
        host, outside, inside = published.split(":")
        assert name in LISTENING
        assert host == "127.0.0.1"
        assert outside == inside == OURS[name]["environment"][f"BELLBUOY_{name.upper()}_PORT"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_can_come_true(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        condition = how["condition"]
        assert condition == ("service_completed_successfully" if other in ONCE else "service_healthy")
        if condition == "service_healthy":
            assert "test" in SERVICES[other]["healthcheck"]


def test_addresses_inside_name_services_and_their_ports() -> None:
    environment = OURS["gateway"]["environment"]
    for variable in ("KAFKA_BOOTSTRAP_SERVERS", "BELLBUOY_CLICKHOUSE_DSN", "MLFLOW_TRACKING_URI", "BELLBUOY_UPSTREAM_URL"):
        found = re.search(r"(?:^|//|@)([a-z]+):(\d+)", interpolated(environment[variable]))
        assert found is not None
        assert found[1] in SERVICES
        assert int(found[2]) == {"kafka": 9092, "clickhouse": 8123, "mlflow": 5000, "sandbox": 8801}[found[1]]


@pytest.mark.parametrize("name", SERVICES)
def test_what_lasts_lies_in_named_volumes(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, _, target = volume.partition(":")
        assert source in COMPOSE["volumes"]
        if name in OURS:
            assert target == f"{OURS[name]['environment']['BELLBUOY_DATA_DIR']}/{source}"
            assert re.search(rf"for folder in [a-z ]*\b{source}\b", DOCKERFILE), "made for the user that runs the process"


def test_the_image_runs_as_a_user_without_rights() -> None:
    assert re.findall(r"^USER (\w+)$", DOCKERFILE, re.M) == ["bellbuoy"]
    assert "useradd --system" in DOCKERFILE


def test_the_image_has_every_package_and_what_the_lock_names() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    packages = re.search(r"wheel\]\npackages = \[(.*)\]", project)
    assert packages is not None
    for package in re.findall(r'"(\w+)"', packages[1]):
        assert f"COPY {package} {package}\n" in DOCKERFILE
        assert f"!{package}\n" in (ROOT / ".dockerignore").read_text()
    assert "--require-hashes -r requirements.lock" in DOCKERFILE
