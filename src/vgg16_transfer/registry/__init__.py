"""Registers a study's best head as a model in MLflow, which can be served."""

import vgg16_transfer.tracking  # noqa: F401 - its settings must be there before MLflow is imported
