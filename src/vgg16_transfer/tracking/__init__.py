"""Telling MLflow what the studies measured, and from which split, code and lock entry.

The plain outputs of a study are the truth; MLflow is told from them, and can be told again. This is
the only room that imports mlflow, and the only one that asks DVC and git.
"""
