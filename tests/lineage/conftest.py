"""No test sees the environment of whoever runs the tests."""

from tests.tracking.conftest import clean_environment

__all__ = ["clean_environment"]
