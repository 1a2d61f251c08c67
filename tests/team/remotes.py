"""Places that a team's data is pushed to: sshd and a server of the S3 protocol, on loopback.

Everything lies in a folder of the test's own: keys, host keys, objects. Nobody's ~/.ssh is read.
"""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import boto3
import pytest
from tests.team.served import free_port

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
BUCKET = "lab"
SECRET = {"access_key_id": "made-up", "secret_access_key": "made-up"}

SSHD_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
# The folder lies in /tmp, where everybody may write.
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@dataclass
class Remote:
    """A place to push to.

    Attributes:
        url: As ``dvc remote add`` takes it.
        secrets: Options that belong into ``.dvc/config.local``.
        names: The names of all objects, relative to the url.
        read: An object's bytes.
        write: Replaces an object.
        delete: Removes an object.
        begun: Whether a transfer to it has begun and not ended.
    """

    url: str
    secrets: dict[str, str]
    names: Callable[[], set[str]]
    read: Callable[[str], bytes]
    write: Callable[[str, bytes], None]
    delete: Callable[[str], None]
    begun: Callable[[], bool]

    def objects(self) -> dict[str, bytes]:
        """All objects by name."""
        return {name: self.read(name) for name in self.names()}


@contextmanager
def ssh_remote(folder: Path) -> Iterator[Remote]:
    """A folder behind sshd, which lets in the one key that was made for it."""
    if SSHD is None:
        _missing("sshd (Debian: openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it when root starts it
    folder.mkdir()
    for key in ("host_key", "key"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", folder / key]
        subprocess.run(make, check=True)
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(SSHD_CONFIG.format(port=port, folder=folder))
    stored = folder / "objects"
    stored.mkdir()
    with _server(folder, port, [SSHD, "-D", "-e", "-f", str(config)]):
        yield Remote(
            url=f"ssh://{getpass.getuser()}@127.0.0.1:{port}{stored}",
            secrets={"keyfile": str(folder / "key")},
            names=lambda: {
                path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file()
            },
            read=lambda name: (stored / name).read_bytes(),
            write=lambda name, content: _replace(stored / name, content),
            delete=lambda name: (stored / name).unlink(),
            begun=lambda: any(path.stat().st_size for path in stored.rglob("*.tmp")),
        )


@contextmanager
def s3_remote(folder: Path) -> Iterator[Remote]:
    """A bucket behind a server of the S3 protocol, which forgets it when it ends."""
    folder.mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).with_name("moto_server"))
    with _server(folder, port, [program, "--host", "127.0.0.1", "--port", str(port)]):
        s3: Any = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=SECRET["access_key_id"],
            aws_secret_access_key=SECRET["secret_access_key"],
        )
        s3.create_bucket(Bucket=BUCKET)

        def names() -> set[str]:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            return {result["Key"] for page in pages for result in page.get("Contents", [])}

        yield Remote(
            url=f"s3://{BUCKET}",
            secrets={"endpointurl": url, **SECRET},
            names=names,
            read=lambda name: s3.get_object(Bucket=BUCKET, Key=name)["Body"].read(),
            write=lambda name, content: s3.put_object(Bucket=BUCKET, Key=name, Body=content),
            delete=lambda name: s3.delete_object(Bucket=BUCKET, Key=name),
            begun=lambda: bool(s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads")),
        )
        s3.close()


KINDS = {"ssh": ssh_remote, "s3": s3_remote}


@contextmanager
def _server(folder: Path, port: int, command: list[str]) -> Iterator[None]:
    """A server that answers on a port, until the block is left."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(1200):
                assert process.poll() is None, (folder / "log").read_text()
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            else:
                pytest.fail(f"{command[0]} does not answer: {(folder / 'log').read_text()}")
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _missing(program: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{program} is not installed")
    pytest.skip(f"{program} is not installed")
