"""Disks of the format tests: small, built on the spot, never committed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from vhdx_bytes import small_vhdx

from imageport.formats.vhdx import VhdxDisk
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder


@pytest.fixture
def folder(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path)


@pytest.fixture
def in_memory() -> Callable[[bytes], ByteFile]:
    """Turn bytes into an open file."""
    store = MemoryFolder()
    names = iter(range(1_000_000))

    def opened(content: bytes) -> ByteFile:
        name = f"file-{next(names)}"
        with store.create(name) as file:
            file.set_sparse()
            file.write_at(0, content)
        return store.open_read(name)

    return opened


@pytest.fixture
def open_vhdx(in_memory: Callable[[bytes], ByteFile]) -> Callable[[bytes], VhdxDisk]:
    return lambda content: VhdxDisk(in_memory(content))


@pytest.fixture(scope="session")
def sound_vhdx() -> bytes:
    """A VHDX of 5 MiB + 3 sectors in blocks of 1 MiB; see `vhdx_bytes.small_vhdx`."""
    return small_vhdx()
