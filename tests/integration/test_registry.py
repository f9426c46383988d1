"""The registry on MLflow's own SQLite store."""

from pathlib import Path

import pytest

from adapters.registry import Registry, RegistryAway, VersionRegistry
from adapters.settings import Settings
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
