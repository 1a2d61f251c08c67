"""``python -m vgg16_transfer`` is the console script ``vgg16-transfer``."""

from vgg16_transfer.cli import main

main()
