"""Hives as libhivex wrote them: looked at once more before one is handed to the disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.hives.base_block import BASE_BLOCK_BYTES
from imageport.compose.hives.hive import Hive
from imageport.errors import EngineFailed

ROOT_KEY = BASE_BLOCK_BYTES + 32 + 4
"""Of hives that hivexregedit made: after the first bin's header and the cell's size."""


def breaks(name: str, at: int, data: bytes) -> Any:
    """Return a `Hive.commit` that writes one hive wrongly, as a library with a fault would."""
    commit = Hive.commit

    def broken(self: Hive) -> None:
        commit(self)
        if self.path.name == name:
            with self.path.open("r+b") as file:
                file.seek(at)
                file.write(data)

    return broken


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "at", "data", "told"),
    [
        ("SYSTEM", BASE_BLOCK_BYTES, bytes(4), "hive bin at offset 4096: found signature 00000000"),
        ("SOFTWARE", ROOT_KEY, b"xx", "key at offset 4128: found signature 7878, needed 'nk'."),
        ("BCD", ROOT_KEY, b"xx", "key at offset 4128: found signature 7878, needed 'nk'."),
    ],
)
def test_a_hive_that_was_written_wrongly_never_reaches_the_disk(
    guest: Any, monkeypatch: pytest.MonkeyPatch, name: str, at: int, data: bytes, told: str
) -> None:
    before = files_below(guest.windows.root), files_below(guest.esp.root)
    monkeypatch.setattr(Hive, "commit", breaks(name, at, data))
    with pytest.raises(EngineFailed, match=re.escape(f"Cannot rewrite hive '{name}': Bad {told}")):
        guest.compose(EngineOptions(recommended=("ignore_boot_failures",)))
    assert (files_below(guest.windows.root), files_below(guest.esp.root)) == before
