"""Passwords are in nothing that is printed and in nothing that a whole run writes."""

from collections.abc import Callable

import pytest

from .conftest import SMALL, Workspace

pytestmark = pytest.mark.pipeline

PLANTED = "pLaNtEd"


def files_with_secret(workspace: Workspace) -> list[str]:
    paths = [path for path in workspace.root.rglob("*") if path.is_file()]
    return [
        path.relative_to(workspace.root).as_posix()
        for path in paths
        if PLANTED.encode() in path.read_bytes()
    ]


def test_a_password_of_the_store_is_nowhere(make_clone: Callable[..., Workspace]) -> None:
    study = SMALL["studies"]["samples"] | {"samples_per_class": 2, "seed": 0, "epochs": 2}
    tiny = {"weights": "random-conv", "image_size": 32}
    workspace = make_clone(SMALL | {"backbone": tiny, "studies": {"samples": study}})
    address = f"http://ann:{PLANTED}@127.0.0.1:9/?token={PLANTED}"
    store = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    printed = workspace.run("dvc", "repro", **store)
    assert "http://***@127.0.0.1:9/?token=***: can't be reached" in printed
    code, published = workspace.finish("vgg16-transfer", "publish", **store)
    assert code == 2
    assert "http://***@127.0.0.1:9" in published
    assert PLANTED not in printed + published
    assert files_with_secret(workspace) == []


def test_a_password_in_a_source_is_refused_before_it_is_stored(
    make_clone: Callable[..., Workspace],
) -> None:
    dataset = SMALL["datasets"]["clipart"] | {"source": f"https://ann:{PLANTED}@h/x.tar"}
    workspace = make_clone(SMALL)
    workspace.write_params(SMALL | {"datasets": {"clipart": dataset}})
    code, printed = workspace.finish("dvc", "repro")
    assert code != 0
    assert "datasets.clipart.source: holds a user or a password" in printed
    assert PLANTED not in printed
    assert files_with_secret(workspace) == ["params.yaml"]
