"""Where nobody may mount, libguestfs fills the sample's NTFS instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from imageport.sandbox.sample import ntfs_volume
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.windows_files import GuestFile, write_tar

pytestmark = [pytest.mark.guest, pytest.mark.slow]


def test_both_ways_give_the_same_files_and_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    contents = tmp_path / "contents.tar"
    files = [
        GuestFile("Windows/System32/config/SYSTEM", b"hive"),
        GuestFile("Windows/System32/drivers/x.sys", b"driver" * 1000),
        GuestFile("Windows/Temp", None),
    ]
    write_tar(contents, iter(files))
    shown = []
    for name, through_fuse in (("fuse", True), ("guestfs", False)):
        volume = tmp_path / f"{name}.ntfs"
        if not through_fuse:
            monkeypatch.setattr(ntfs_volume, "_fill_through_fuse", lambda *_: False)
        ntfs_volume.make_ntfs_volume(volume, contents)
        assert "0x0000" in run(["ntfsinfo", "-m", volume])
        shown.append([_facts(volume, file.path) for file in files])
    assert shown[0] == shown[1]


def _facts(volume: Path, path: str) -> str:
    text = run(["ntfssecaudit", "-v", volume, f"/{path}"])
    return "\n".join(line for line in text.splitlines() if "key" not in line.lower())
