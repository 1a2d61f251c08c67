"""The workspace whose model is served."""

from typing import Any

import pytest
from tests.team.served import STUDY

from vgg16_transfer import cli


@pytest.fixture(scope="module")
def registered(trained, publish, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A workspace whose study was published, and registered by our command."""
    workspace = trained.copy(tmp_path_factory.mktemp("served") / "workspace")
    publish(workspace, STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(workspace.root)
        cli.models.register(STUDY)
    return workspace
