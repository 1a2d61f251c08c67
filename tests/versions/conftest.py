"""No test sees the environment of whoever runs the tests, nor the settings of git and DVC."""

import pytest
from tests.tracking.conftest import clean_environment

from .released import isolate

__all__ = ["clean_environment", "isolated"]


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path_factory) -> None:
    isolate(monkeypatch, tmp_path_factory.getbasetemp())
