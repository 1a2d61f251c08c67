from collections.abc import Iterator

import numpy as np
import pytest
from tests.heads import small

from vgg16_transfer.heads import end_to_end
from vgg16_transfer.heads.base import Pictures

CLASSES = 7
SHAPE = (1, 5, 10)


def pictures(seed: int, count: int, classes: int = CLASSES, width: int = 50) -> Pictures:
    """Made-up features: each class has its own centre."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(99).standard_normal((classes, width))
    features = np.maximum(centres[labels] + random.standard_normal((count, width)), 0)
    return Pictures(features.astype(np.float32), labels)


@pytest.fixture(scope="module")
def small_inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[small.Inputs]:
    """Inputs of a study of a network of three convolutions, which takes the place of VGG16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(end_to_end.base, "load", small.network)
        yield small.make_inputs(tmp_path_factory.mktemp("small"))
