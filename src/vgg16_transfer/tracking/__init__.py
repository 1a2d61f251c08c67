"""A study's results as runs in MLflow.

The files of a study are the truth. They are logged to MLflow, and can be logged again.
"""
