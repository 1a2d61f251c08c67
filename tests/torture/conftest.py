"""What only `make torture` runs is not collected by `make test`."""

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("TORTURE") == "1":
        return
    left_out = [item for item in items if item.get_closest_marker("torture")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
