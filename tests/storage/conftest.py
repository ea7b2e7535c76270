"""Folders of every kind; one real file server for all tests of this area."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.sandbox.samba import SambaServer
from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation

USER = "golden"
PASSWORD = "Planted-Secret-4711"


@pytest.fixture(scope="session")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    root = tmp_path_factory.mktemp("samba")
    with SambaServer(root / "server", {"store": root / "store"}, USER, PASSWORD) as server:
        yield server


@pytest.fixture
def credentials() -> SmbCredentials:
    return SmbCredentials(USER, PASSWORD)


@pytest.fixture
def smb_location(samba: SambaServer) -> SmbLocation:
    """A folder of its own, so that tests do not see each other's files."""
    return SmbLocation.parse(f"{samba.location('store')}/{secrets.token_hex(4)}")


@pytest.fixture
def smb_folder(smb_location: SmbLocation, credentials: SmbCredentials) -> Iterator[SmbFolder]:
    with SmbFolder(smb_location, credentials) as folder:
        folder.make_folder("")
        yield folder


@pytest.fixture(params=["local", "memory", "smb"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "local":
        yield LocalFolder(tmp_path)
    elif request.param == "memory":
        yield MemoryFolder()
    else:
        yield request.getfixturevalue("smb_folder")
