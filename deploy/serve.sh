#!/bin/sh
# Starts the tracking server: compose.yaml, docs/team.md and the tests all start this one.
# Options go on to `mlflow server`, such as --port 5001.
set -eu

: "${PGHOST:?where PostgreSQL is: a host, or the folder of its socket}"
: "${PGUSER:?a user who owns the database mlflow}"
: "${MLFLOW_ARTIFACTS_DESTINATION:?a folder or s3://bucket for models and pictures}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?the same long random text at every start}"

deploy=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
export MLFLOW_AUTH_CONFIG_PATH="${MLFLOW_AUTH_CONFIG_PATH:-$deploy/basic_auth.ini}"
export MLFLOW_DISABLE_TELEMETRY=true
# Eight more processes, for language models' jobs, which no study has.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

# PostgreSQL's own variables say the rest, so that no password stands in a list of processes.
exec mlflow server \
    --app-name basic-auth \
    --backend-store-uri postgresql+psycopg:///mlflow \
    --artifacts-destination "$MLFLOW_ARTIFACTS_DESTINATION" \
    --host 127.0.0.1 \
    "$@"
