"""Stores on a local folder and on a real file server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.sandbox.samba import SambaServer
from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    root = tmp_path_factory.mktemp("pvs")
    with SambaServer(root / "server", {"vdisks": root / "vdisks"}, "pvs", "pvs-pass") as server:
        yield server


@pytest.fixture(params=["local", "smb"])
def store_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "local":
        yield LocalFolder(tmp_path)
        return
    server = request.getfixturevalue("store_server")
    location = SmbLocation.parse(f"{server.location('vdisks')}/{secrets.token_hex(4)}")
    with SmbFolder(location, SmbCredentials("pvs", "pvs-pass")) as folder:
        folder.make_folder("")
        yield folder
