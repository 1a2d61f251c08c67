"""Versions of a dataset's splits, and the DVC remotes that share them."""
