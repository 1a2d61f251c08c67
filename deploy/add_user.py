#!/usr/bin/env -S python -W ignore
"""Adds a user to the tracking server, and prints the password that was drawn, once.

    deploy/add_user.py NAME            reads everything
    deploy/add_user.py NAME --member   publishes as well

MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD name the server and its
admin.
"""

import argparse
import secrets
import sys

import mlflow
from mlflow.server import get_app_client
from mlflow.server.auth.client import AuthServiceClient

TEAM = "team"
WORKSPACE = "default"  # the only one of a server that was not told to have more

# Members may delete runs and models, though no experiment: of two runs that two processes made of
# the same trial at once, publish removes one.
PERMISSIONS = {"experiment": "EDIT", "run": "MANAGE", "logged_model": "MANAGE"}


def team(server: AuthServiceClient) -> int:
    """The id of the role of all members, which is made if there is none."""
    for role in server.list_roles(WORKSPACE):
        if role.name == TEAM:
            return int(role.id)
    role = server.create_role(WORKSPACE, TEAM)
    for resource, permission in PERMISSIONS.items():
        server.add_role_permission(role.id, resource, "*", permission)
    return int(role.id)


def main() -> None:
    """Reads the command line, and does it."""
    parser = argparse.ArgumentParser(description="Add a user to the tracking server.")
    parser.add_argument("name")
    parser.add_argument("--member", action="store_true", help="may publish results")
    given = parser.parse_args()
    server = get_app_client("basic-auth", mlflow.get_tracking_uri())
    password = secrets.token_urlsafe()
    try:
        server.create_user(given.name, password)
        if given.member:
            server.assign_role(given.name, team(server))
    except mlflow.MlflowException as error:
        reason = str(error).partition("\n")[0]  # the rest may hold the hash of a password
        sys.exit(f"error: {mlflow.get_tracking_uri()}: {reason}")
    sys.stdout.write(f"{password}\n")


if __name__ == "__main__":
    main()
