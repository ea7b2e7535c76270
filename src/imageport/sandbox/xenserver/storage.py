# References: xapi-project/xen-api, ocaml/xapi/xapi_vdi.ml (snapshot, destroy).
"""Disks of the pool as sparse raw files: a snapshot is a sparse copy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from imageport.sandbox.xenserver.vhd_layout import BLOCK


class DiskFolder:
    """One raw file for each VDI, named by its uuid."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, vdi_uuid: str) -> Path:
        """Return where a disk's bytes lie."""
        return self._folder / f"{vdi_uuid}.raw"

    def create(self, vdi_uuid: str, size_bytes: int) -> Path:
        """Make an empty disk."""
        path = self.path(vdi_uuid)
        with path.open("xb") as file:
            file.truncate(size_bytes)
        return path

    def copy(self, source_uuid: str, vdi_uuid: str) -> None:
        """Freeze a disk; holes stay holes, and where the file system can, nothing is copied."""
        subprocess.run(
            ["cp", "--reflink=auto", "--sparse=always", self.path(source_uuid),
             self.path(vdi_uuid)],
            check=True,
        )  # fmt: skip

    def remove(self, vdi_uuid: str) -> None:
        """Forget a disk's bytes."""
        self.path(vdi_uuid).unlink()


def allocated_blocks(path: Path) -> list[int]:
    """Return the indexes of the VHD blocks that a disk has, ascending."""
    found: set[int] = set()
    with path.open("rb") as file:
        offset, size = 0, os.fstat(file.fileno()).st_size
        while offset < size:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError:
                break  # ENXIO: nothing but a hole up to the end
            offset = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.update(range(start // BLOCK, (offset - 1) // BLOCK + 1))
    return sorted(found)


def changed_blocks(path: Path, base: Path) -> list[int]:
    """Return the blocks whose bytes differ from those of an earlier snapshot, ascending."""
    either = sorted({*allocated_blocks(path), *allocated_blocks(base)})
    with path.open("rb") as now, base.open("rb") as then:
        return [
            index
            for index in either
            if os.pread(now.fileno(), BLOCK, index * BLOCK).ljust(BLOCK, b"\0")
            != os.pread(then.fileno(), BLOCK, index * BLOCK).ljust(BLOCK, b"\0")
        ]


def blocks_of(path: Path, indexes: list[int]) -> Iterator[bytes]:
    """Yield whole blocks; past the end of the disk they are zeros, as xapi pads the last."""
    with path.open("rb") as file:
        for index in indexes:
            yield os.pread(file.fileno(), BLOCK, index * BLOCK).ljust(BLOCK, b"\0")


def pieces_of(path: Path) -> Iterator[bytes]:
    """Yield all of a disk in order, holes as zeros."""
    with path.open("rb") as file:
        while data := file.read(BLOCK):
            yield data
