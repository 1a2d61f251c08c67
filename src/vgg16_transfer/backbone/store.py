"""The place of the feature store before version 0.2, for scripts that import it from here."""

from vgg16_transfer.backbones.store import FeaturesError, FeatureStore

__all__ = ["FeatureStore", "FeaturesError"]
