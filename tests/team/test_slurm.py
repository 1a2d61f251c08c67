"""The jobs of slurm/ on a real SLURM with two nodes."""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pipeline.conftest import Workspace, clone
from tests.team.cluster import Slurm, two_nodes

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]

PARAMS = {
    "backbone": {"weights": "random-conv", "image_size": 32},
    "datasets": {
        "drawings": {
            "source": "drawings.tar",
            "split": {"seeds": [0], "train_per_class": 2, "test_per_class": 2},
            "layers": ["block4_pool", "block5_pool"],
        }
    },
    "studies": {
        "few": {"dataset": "drawings", "samples_per_class": [1, 2], "epochs": 3},
        "tuned": {
            "dataset": "drawings",
            "approach": "end_to_end",
            "fine_tune_from": "block5",
            "samples_per_class": 1,
            "epochs": 2,
        },
    },
}

CLUSTER = """\
ALL=(--time=01:00:00)
NETWORK=()
HEADS=()
setup() {{ :; }}
SCRATCH={scratch}
"""


def write_drawings(path: Path) -> None:
    """Four pictures of each of three classes of the clip art."""
    with tarfile.open(ROOT / "data" / "clipart.tar") as source, tarfile.open(path, "w") as out:
        classes: dict[str, int] = {}
        for member in source:
            name = Path(member.name).parent.name
            if member.isfile() and (name in classes or len(classes) < 3):
                classes[name] = classes.get(name, 0) + 1
                if classes[name] <= 4:
                    content = source.extractfile(member)
                    assert content is not None
                    out.addfile(member, io.BytesIO(content.read()))


def submitted(workspace: Workspace, slurm: Slurm, *arguments: str, **changes: str) -> list[str]:
    """The ids of the jobs that slurm/submit names."""
    printed = workspace.run("slurm/submit", *arguments, **slurm.environment, **changes)
    return re.findall(r"(?:job|job array) (\d+)", printed)


def logs(workspace: Workspace) -> str:
    return "\n".join(path.read_text() for path in sorted(workspace.root.glob("slurm-*.out")))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with two_nodes(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "clone").mkdir()
    made = clone(folder / "clone", PARAMS)
    write_drawings(made.root / "drawings.tar")
    scratch = folder / "scratch"
    (made.root / "slurm" / "cluster.env").write_text(CLUSTER.format(scratch=scratch))
    return made
