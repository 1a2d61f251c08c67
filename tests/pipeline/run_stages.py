"""Runs the commands in its arguments one after the other in this process.

A process for each would import TensorFlow each time.
"""

import gc
import sys

import keras

from vgg16_transfer import cli

for command in sys.argv[1:]:
    sys.argv = command.split()
    try:
        cli.main()
    except SystemExit as stopped:
        if stopped.code:
            sys.exit(f"{command}: exit code {stopped.code}")
    # A command leaves its networks, of 550 MB each, to the end of its process.
    keras.backend.clear_session()
    gc.unfreeze()
    gc.collect()
