"""params.yaml as typed, validated values.

Everything that decides a result stands in params.yaml; nothing else in the package reads a setting
from a file, an environment variable or a global.
"""

from vgg16_transfer.networks import DENSE_LAYERS
from vgg16_transfer.params.reading import check_params, read_params
from vgg16_transfer.params.schema import (
    Backbone,
    Dataset,
    Layout,
    Params,
    ParamsError,
    Split,
    Study,
    Trial,
    nearest,
)

__all__ = [
    "DENSE_LAYERS",
    "Backbone",
    "Dataset",
    "Layout",
    "Params",
    "ParamsError",
    "Split",
    "Study",
    "Trial",
    "check_params",
    "nearest",
    "read_params",
]
