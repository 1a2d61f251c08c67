import numpy as np

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
