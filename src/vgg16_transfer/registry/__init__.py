"""A study's best head as a registered, served model in MLflow."""
