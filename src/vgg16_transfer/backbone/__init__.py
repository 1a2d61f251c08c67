"""The name of :mod:`vgg16_transfer.backbones` before version 0.2, for scripts that use it."""
