"""What only a folder of this machine can do."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.errors import FileLocked, InputError, NameTaken, ShareError, ShareFull
from imageport.storage import local
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder

MIB = 1024 * 1024


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    folder = LocalFolder(tmp_path / "root")
    for name in ("out", "up/secret", "up"):
        with pytest.raises(InputError, match="leaves"):
            folder.open_read(name)
    with pytest.raises(InputError, match="leaves"):
        folder.create("up/new")


def test_a_link_inside_the_folder_is_followed(tmp_path: Path):
    (tmp_path / "gold.vhdx").write_bytes(b"gold")
    (tmp_path / "latest").symlink_to("gold.vhdx")
    assert LocalFolder(tmp_path).read_bytes("latest") == b"gold"


def test_a_link_to_nothing_is_not_listed(tmp_path: Path):
    (tmp_path / "dangling").symlink_to("nothing")
    assert LocalFolder(tmp_path).list() == []


def test_rename_without_replacing_works_where_the_kernel_lacks_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class OldKernel:
        def __init__(self, *_arguments: object, **_options: object) -> None: ...

        def renameat2(self, *_arguments: object) -> int:
            return -1

    monkeypatch.setattr(local.ctypes, "CDLL", OldKernel)
    monkeypatch.setattr(local.ctypes, "get_errno", lambda: errno.EINVAL)
    folder = LocalFolder(tmp_path)
    folder.write_bytes("a", b"a")
    folder.write_bytes("b", b"b")
    with pytest.raises(NameTaken):
        folder.rename("a", "b")
    folder.rename("a", "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


def test_locks_hold_between_processes(tmp_path: Path):
    folder = LocalFolder(tmp_path)
    folder.write_bytes("gold", b"x")
    holder = subprocess.Popen(
        ["flock", "--exclusive", tmp_path / "gold", "sh", "-c", "echo held; read _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FileLocked):
            folder.open_read("gold")
    finally:
        holder.communicate()
    folder.open_read("gold").close()


def test_a_read_error_is_no_bare_os_error(tmp_path: Path):
    folder = LocalFolder(tmp_path)
    folder.write_bytes("x", b"x")
    file = folder.open_read("x")
    file.close()
    with pytest.raises(ShareError):
        file.read_at(0, 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "small"
    path.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path]
    if subprocess.run(argv, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_is_told_as_such(small_disk: Path):
    folder = LocalFolder(small_disk)
    with folder.create("part") as file, pytest.raises(ShareFull, match="part"):
        file.write_at(0, os.urandom(5 * MIB))
    folder.delete("part")
    assert folder.free_bytes() == 4 * MIB


def test_memory_that_is_full_is_told_as_such():
    folder = MemoryFolder(capacity_bytes=MIB)
    with folder.create("part") as file:
        file.write_at(0, bytes(MIB))
        file.write_at(0, bytes(MIB))
        with pytest.raises(ShareFull):
            file.write_at(MIB, b"x")
    assert folder.free_bytes() == 0
    folder.delete("part")
    assert folder.free_bytes() == MIB
