"""Computes features in a process of its own: ``python driver.py FOLDER local|ray``.

It is the stage, but for chunks of 4 pictures: a few pictures are then many items.
"""

import sys
from pathlib import Path

from vgg16_transfer.errors import InputError

SIDE = 96
CHUNK = 4


def main(folder: Path, compute: str) -> None:
    from vgg16_transfer.quiet import silence_tensorflow

    silence_tensorflow()

    from vgg16_transfer.backbones import features, store
    from vgg16_transfer.cli.app import pool_of
    from vgg16_transfer.images.source import Source
    from vgg16_transfer.params import Backbone, Params

    store.CHUNK = features.CHUNK = CHUNK
    backbone = Backbone(weights="random-conv", image_size=SIDE)
    with pool_of(Params({"vgg16": backbone}, {}, {}, compute=compute), on_ray=False) as pool:
        written = features.write_features(
            {"vgg16": backbone},
            ["block4_pool", "block5_pool"],
            weights={"vgg16": folder / "vgg16.weights.h5"},
            splits=folder / "splits",
            source=Source(folder / "pictures.tar"),
            outs={"vgg16": folder / compute / "d"},
            pool=pool,
        )
    print(written["vgg16"].computed)  # noqa: T201


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except InputError as error:
        sys.exit(str(error))
