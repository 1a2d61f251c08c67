"""Licences and sources of weights and pictures, as the card and exported models name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vgg16_transfer.errors import redacted

if TYPE_CHECKING:
    from vgg16_transfer.networks import Network
    from vgg16_transfer.params import Dataset

_OXFORD = "K. Simonyan and A. Zisserman, Visual Geometry Group, University of Oxford, CC BY 4.0"


def of_weights(network: Network, weights: str) -> str:
    """Where the weights of a network come from, and their licence if it is known.

    Args:
        network: The network.
        weights: What params.yaml names as its weights. It may be an address with a password.
    """
    if not weights.startswith("imagenet"):
        return redacted(weights)
    if network.title.startswith("VGG"):
        return _OXFORD
    return f"ImageNet's, as keras.applications has them ({network.published})"


def of_pictures(dataset: Dataset) -> str:
    """The licence of a dataset's pictures, without a full stop."""
    return (dataset.licence or "licence not stated").rstrip(".")
