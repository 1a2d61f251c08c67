"""The script of the study's first approach: a frozen VGG16 with a new last layer, and Keras's fit.

    python benchmarks/peers/keras_script.py FOLDER [--epochs 2]

FOLDER has ``train`` and ``test`` with one folder for each class. Each epoch sends all pictures
through the network again. Prints the seconds of the last epoch; the first one also traces. Weights
are random, since they cost no time.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras


class Clock(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Seconds of each epoch, with its validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, *_: object) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_epoch_end(self, *_: object) -> None:
        """Stops it."""
        self.seconds.append(time.perf_counter() - self._started)


def main() -> None:
    """Trains, and prints what the last epoch took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    asked = parser.parse_args()
    train, test = (
        keras.utils.image_dataset_from_directory(
            asked.folder / role, image_size=(224, 224), batch_size=32, verbose=False
        )
        for role in ("train", "test")
    )
    network = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    network.trainable = False
    model = keras.Sequential(
        [
            keras.layers.Lambda(keras.applications.vgg16.preprocess_input),
            network,
            keras.layers.Flatten(),
            keras.layers.Dense(len(train.class_names), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    clock = Clock()
    model.fit(train, validation_data=test, epochs=asked.epochs, callbacks=[clock], verbose=0)
    print(clock.seconds[-1])


if __name__ == "__main__":
    main()
