"""params.yaml as typed, validated values.

All settings that decide a result are in params.yaml. No other part of the package reads such a
setting from a file, an environment variable or a global variable.
"""

from vgg16_transfer.params.backbone import Backbone
from vgg16_transfer.params.dataset import Dataset, Layout, Split
from vgg16_transfer.params.reading import check_params, read_params
from vgg16_transfer.params.schema import Params
from vgg16_transfer.params.section import ParamsError, nearest
from vgg16_transfer.params.study import Study, Trial

__all__ = [
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
