"""Finds the split, code and lock entry that results come from. Uses DVC and git."""
