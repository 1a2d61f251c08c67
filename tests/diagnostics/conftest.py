"""The network of random weights that the tests of backbones use."""

from tests.backbones.conftest import backbone, random_weights

__all__ = ["backbone", "random_weights"]
