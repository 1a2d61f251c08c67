"""The stores that the tests of tracking use."""

from tests.tracking.conftest import clean_environment, database, make_store, store

__all__ = ["clean_environment", "database", "make_store", "store"]
