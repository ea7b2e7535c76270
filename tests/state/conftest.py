"""State stores over every kind of folder; one real file server for all tests of this area."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imageport.sandbox.samba import SambaServer
from imageport.state.store import StateStore
from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation

USER = "keeper"
PASSWORD = "Planted-Secret-0815"

OpenFolder = Callable[[], Folder]


@pytest.fixture(scope="session")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    root = tmp_path_factory.mktemp("samba")
    with SambaServer(root / "server", {"state": root / "state"}, USER, PASSWORD) as server:
        yield server


@pytest.fixture(params=["local", "memory", "smb"])
def open_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenFolder]:
    """Open the same empty folder as often as asked, each time as another site would."""
    opened: list[Folder] = []

    def remember(folder: Folder) -> Folder:
        opened.append(folder)
        return folder

    if request.param == "local":
        yield lambda: remember(LocalFolder(tmp_path))
    elif request.param == "memory":
        memory = MemoryFolder()
        yield lambda: memory
    else:
        server: SambaServer = request.getfixturevalue("samba")
        location = SmbLocation.parse(f"{server.location('state')}/{secrets.token_hex(4)}")
        first = SmbFolder(location, SmbCredentials(USER, PASSWORD))
        first.make_folder("")
        first.close()
        yield lambda: remember(SmbFolder(location, SmbCredentials(USER, PASSWORD)))
    for folder in opened:
        folder.close()


@pytest.fixture
def folder(open_folder: OpenFolder) -> Folder:
    return open_folder()


@pytest.fixture
def store(folder: Folder) -> StateStore:
    return StateStore(folder)
