"""Every part of DVC that DVC does not document as its Python interface, in one place.

DVC documents ``dvc.api`` only. This project also uses ``dvc.repo.Repo`` and ``dvc.exceptions``.
All that lies below them can change with any minor version of DVC. pyproject.toml therefore sets an
upper bound, and tests/lineage/test_dvc_private.py names the version that was tested.

The imports are inside the functions, because DVC takes about a second to import.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dvc.repo import Repo

_CHUNK = 1 << 20  # bytes that are read at a time


def lock_entry(workspace: Path, stage: str, *, outputs: bool = True) -> dict[str, Any]:
    """Computes the entry that DVC will write to dvc.lock when a running stage is over.

    Args:
        workspace: The folder of dvc.yaml.
        stage: Stage name, like ``train@clipart-samples``.
        outputs: Whether to include the outputs, which must then exist. Without them, the entry is
            what goes into the stage.

    Returns:
        The entry, with the same keys and in the same order as in dvc.lock.

    Raises:
        dvc.exceptions.DvcException: dvc.yaml has no such stage, or a dependency or an output is
            missing.
    """
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_lockfile

    with Repo(str(workspace)) as repo:
        loaded = repo.stage.load_one(str(workspace / "dvc.yaml"), stage)
        loaded.save_deps()
        if outputs:
            loaded.save_outs()
        else:
            loaded.outs = []
        entry: dict[str, Any] = to_single_stage_lockfile(loaded)
        return entry


def stage_is_up_to_date(workspace: Path, stage: str) -> bool:
    """Whether the dependencies and outputs of a stage are what dvc.lock says.

    Raises:
        dvc.exceptions.DvcException: dvc.yaml has no such stage.
    """
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo, repo.lock:
        return not repo.stage.load_one(str(workspace / "dvc.yaml"), stage).status()


def folder_md5s(folder: Path) -> tuple[str, dict[str, str]]:
    """Computes the md5 that DVC gives to a folder.

    Returns:
        The md5 of the folder, which ends in ``.dir``; and the md5 of each file below it, by path
        relative to the folder.
    """
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    files = LocalFileSystem()
    _, _, tree = build(HashFileDB(files, str(folder)), str(folder), files, "md5", dry_run=True)
    return tree.hash_info.value, {"/".join(key): info.value for key, _, info in tree}


class Output:
    """An output of a stage, as dvc.yaml declares it."""

    def __init__(self, out: Any) -> None:
        self._out = out

    @property
    def path(self) -> str:
        """Path relative to the folder of dvc.yaml."""
        return str(self._out.def_path)

    def in_workspace(self, md5: str) -> bool:
        """Whether the workspace has the bytes with this md5 at the output's path.

        Args:
            md5: md5 of a file, or of a folder if it ends in ``.dir``.
        """
        self._expect(md5)
        return bool(self._out.exists) and not self._out.changed_checksum()

    def in_cache(self, md5: str) -> bool:
        """Whether DVC's cache has the bytes with this md5."""
        self._expect(md5)
        return not self._out.changed_cache()

    def _expect(self, md5: str) -> None:
        from dvc_data.hashfile.hash_info import HashInfo

        self._out.hash_info = HashInfo("md5", md5)


def outputs(repo: Repo) -> list[Output]:
    """All outputs of a repository."""
    return [Output(out) for out in repo.index.outs]


def copy_folder(workspace: Path, revision: str, folder: str, target: Path) -> bool:
    """Copies the files of a folder that DVC tracks, as they were at a git revision.

    The bytes come from DVC's cache, or else from the default remote. The workspace does not change.

    Args:
        workspace: The DVC root.
        revision: A commit, tag or branch of git.
        folder: Path below the DVC root, like ``data/splits/clipart``. Folders in it are not copied.
        target: An existing folder to copy to.

    Returns:
        Whether the revision has the folder.

    Raises:
        dvc.exceptions.DvcException: git has no such revision.
        OSError: The bytes are neither in the cache nor on the remote.
    """
    from dvc.repo import Repo
    from dvc.repo.brancher import switch
    from dvc_data.index import DataIndexError

    try:
        with Repo(str(workspace)) as repo, switch(repo, revision):
            if not repo.dvcfs.exists(f"/{folder}"):
                return False
            for path in repo.dvcfs.ls(f"/{folder}", detail=False):
                repo.dvcfs.get_file(path, str(target / Path(path).name))
            return True
    except DataIndexError as error:
        raise FileNotFoundError(str(error)) from error


class ObjectStore:
    """DVC's cache, or a remote: one object per file, named after the md5 of its bytes."""

    def __init__(self, odb: Any) -> None:
        self._odb = odb

    def location(self, oid: str) -> str:
        """Path or address of an object.

        Args:
            oid: The object's name: the md5 of a file, or of a folder's list of files with ``.dir``
                appended.
        """
        return str(self._odb.oid_to_path(oid))

    def chunks(self, oid: str) -> Iterator[bytes]:
        """Reads the bytes of an object, one MiB at a time.

        Raises:
            FileNotFoundError: There is no such object.
        """
        with self._odb.fs.open(self.location(oid), "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def files(self, oid: str) -> dict[str, str]:
        """The files that a folder's list names: path relative to the folder, by md5."""
        entries = json.loads(self._odb.fs.cat_file(self.location(oid)))
        return {entry["md5"]: entry["relpath"] for entry in entries}

    def upload(self, oid: str, source: ObjectStore) -> None:
        """Writes an object with the bytes of another store, which lies on this machine."""
        files, path = self._odb.fs, self.location(oid)
        files.makedirs(files.parent(path), exist_ok=True)
        files.put_file(source.location(oid), path)


def cache(repo: Repo) -> ObjectStore:
    """The cache of a repository on this machine."""
    return ObjectStore(repo.cache.local)


def remote(repo: Repo, name: str | None) -> ObjectStore:
    """A remote of a repository, or its default one.

    Raises:
        dvc.exceptions.DvcException: There is no such remote.
    """
    return ObjectStore(repo.cloud.get_remote_odb(name, hash_name="md5"))


def cached_outputs(repo: Repo) -> dict[str, str]:
    """The outputs of a repository that DVC keeps in its cache: path, by md5."""
    return {
        out.hash_info.value: str(out) for out in repo.index.outs if out.use_cache and out.hash_info
    }
