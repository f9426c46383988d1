"""Which processes a stack runs itself, where they listen, and what is told of them."""

from pathlib import Path

from adapters.process import port_is_free
from adapters.settings import Settings
from bellbuoy.addresses import Ports, listens_on, pick_ports, runs_here, urls

PORTS = Ports(collector=1, store=2, page=3, gateway=4, sandbox=5, mlflow=6)


def test_everything_runs_here_where_nothing_else_is_named(tmp_path: Path) -> None:
    assert set(urls(Settings(data_dir=tmp_path), PORTS, "k:9092")) == {*vars(PORTS), "kafka"}


def test_with_a_provider_of_ones_own_there_is_no_sandbox(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, upstream_url="https://provider.example/v1")
    assert not runs_here(settings, "sandbox")
    assert "sandbox" not in urls(settings, PORTS, "k:9092")


def test_an_mlflow_of_ones_own_is_named_without_its_password(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, MLFLOW_TRACKING_URI="https://me:secret@mlflow.example")
    assert not runs_here(settings, "mlflow")
    assert urls(settings, PORTS, "k:9092")["mlflow"] == "https://mlflow.example"


def test_what_has_no_users_of_its_own_listens_on_this_machine_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, host="0.0.0.0")
    assert [listens_on(settings, name) for name in ("store", "sandbox", "mlflow")] == ["127.0.0.1"] * 3
    assert listens_on(settings, "gateway") == "0.0.0.0"


def test_ports_are_free_and_differ(tmp_path: Path) -> None:
    zero = {f"{name}_port": 0 for name in vars(PORTS)}
    picked = list(vars(pick_ports(Settings(data_dir=tmp_path, **zero))).values())
    assert len(set(picked)) == len(picked)
    assert all(port_is_free("127.0.0.1", port) for port in picked)
