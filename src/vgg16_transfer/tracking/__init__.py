"""Logs the results of studies as runs in MLflow.

The files of a study are the source of truth. They can be logged again at any time.

MLflow reads some settings while it is imported. They are set here, because Python runs this file
before any module of the package can import MLflow.
"""

import os

# MLflow would report the use of this project over the network.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# MLflow would draw a progress bar for every file.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Two lines of address for every run would hide the other messages of a stage.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# 14 seconds are enough for a server that restarts. MLflow would wait four minutes for one that is
# gone, and two for each answer. No result depends on it: everything can be logged later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
