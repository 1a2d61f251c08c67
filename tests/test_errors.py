"""What is shown of addresses."""

import pytest

from vgg16_transfer.errors import MAX_CHARACTERS, MAX_LINES, redacted, shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:secret@h/x", "https://***@h/x"),
        ("http://secret@h", "http://***@h"),
        ("postgresql+psycopg://ann:s@cret@h:5/db", "postgresql+psycopg://***@h:5/db"),
        ("sftp://a:secret@h and s3://k:secret@b/c", "sftp://***@h and s3://***@b/c"),
        ("https://h/x?a=1&X-Amz-Signature=secret&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("postgresql://h/db?sslpassword=secret", "postgresql://h/db?sslpassword=***"),
    ],
)
def test_users_passwords_and_signatures_are_hidden(text: str, shown: str) -> None:
    assert redacted(f"{text}: can't be reached") == f"{shown}: can't be reached"


@pytest.mark.parametrize(
    "text", ["ann@example.org", "sqlite:////a/b@c/mlflow.db", "https://h/a@b?page=2", "http://[::1"]
)
def test_nothing_else_is_hidden(text: str) -> None:
    assert redacted(text) == text


def test_a_message_has_few_lines_that_are_not_long() -> None:
    long = "datasets.d: " + "x" * 10**6 + "; run dvc repro"
    lines = shown("\n".join([long, *["one more"] * 99]))
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == f"and {100 - MAX_LINES} more"
    assert len(lines[0]) < MAX_CHARACTERS + 10
    assert lines[0].startswith("datasets.d: xxx")
    assert lines[0].endswith("; run dvc repro")


def test_a_short_message_is_shown_as_it_is() -> None:
    assert shown("params.yaml: one\nparams.yaml: two") == ["params.yaml: one", "params.yaml: two"]
