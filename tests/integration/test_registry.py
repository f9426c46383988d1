"""The registry on MLflow's own SQLite store."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from adapters.registry import Registry, RegistryAway, VersionRegistry, model_name
from adapters.settings import Settings
from core import deployment
from services import deploy_registry
from tests.registry_suite import SMALL, RegistrySuite

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, to be copied."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(Settings(data_dir=path.parent, MLFLOW_TRACKING_URI=f"sqlite:///{path}")).versions("a", "b")
    return path


class TestMlflowRegistry(RegistrySuite):
    @pytest.fixture
    def registry(self, database: Path, tmp_path: Path) -> VersionRegistry:
        copy = tmp_path / "mlflow.db"
        copy.write_bytes(database.read_bytes())
        return Registry(Settings(data_dir=tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{copy}"))


def test_an_mlflow_that_does_not_answer_is_away(tmp_path: Path) -> None:
    registry = Registry(Settings(data_dir=tmp_path, MLFLOW_TRACKING_URI="http://user:secret-word@127.0.0.1:9"))
    with pytest.raises(RegistryAway) as caught:
        registry.register("desk", "demo", SMALL)
    assert "secret-word" not in str(caught.value)


def test_who_asks_for_a_configuration_is_told_that_mlflow_is_away(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    with pytest.raises(deployment.RegistryAway, match="does not answer"):
        deploy_registry.registry(settings)("desk", "demo", "v1")


def test_an_mlflow_that_says_no_is_waited_for(tmp_path: Path, database: Path) -> None:
    copy = tmp_path / "mlflow.db"
    copy.write_bytes(database.read_bytes())
    registry = Registry(Settings(data_dir=tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{copy}"))
    registry.register("desk", "demo", SMALL)
    client = MlflowClient(f"sqlite:///{copy}")
    (experiment,) = [one for one in client.search_experiments() if one.name == model_name("desk", "demo")]
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(RegistryAway, match="INVALID_PARAMETER_VALUE"):
        registry.register("desk", "demo", SMALL)
