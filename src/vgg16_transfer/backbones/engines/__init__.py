"""Engines: one module each, named like its row in ``ENGINES``."""
