"""Copies without hashing and journal: the same bytes, by the kernel or through memory."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from vhdx_bytes import SIZE, expected, small_vhdx

from imageport.errors import ShareError, ShareFull, SourceChanged
from imageport.formats.opening import open_disk
from imageport.formats.plain_copy import copy_plainly
from imageport.formats.raw_target import RawFileTarget
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB, ExtentState
from imageport.progress import Event, EventKind, silent
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder
from imageport.storage.local_file import LocalFile, LocalWritableFile
from imageport.storage.memory import MemoryFolder

Refuse = Callable[..., int]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """70 MiB: data over the border of a kernel's piece, in the last sector, and a hole."""
    path = tmp_path / "gold.raw"
    dice = random.Random(3)  # noqa: S311 - contents
    with path.open("wb") as file:
        file.truncate(70 * MIB)
        file.write((bytes(510) + b"\x55\xaa") + dice.randbytes(33 * MIB))
        file.seek(70 * MIB - 512)
        file.write(dice.randbytes(512))
    return path


@pytest.fixture
def vhdx(tmp_path: Path) -> Path:
    path = tmp_path / "small.vhdx"
    path.write_bytes(small_vhdx())
    return path


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count what the kernel copied."""
    found: list[int] = []
    real = os.copy_file_range

    def counted(*arguments: int) -> int:
        found.append(real(*arguments))
        return found[-1]

    monkeypatch.setattr(os, "copy_file_range", counted)
    return found


def opened(path: Path) -> VirtualDisk:
    return open_disk(LocalFolder(path.parent).open_read(path.name))


def copied(source: Path, name: str) -> int:
    folder = LocalFolder(source.parent)
    kind = VhdxFileTarget if name.endswith("vhdx") else RawFileTarget
    target = kind(folder, name)
    with opened(source) as disk:
        count = copy_plainly(disk, target, silent)
    target.close()
    return count


def test_the_kernel_copies_what_lies_in_both_files_as_it_is(raw: Path, kernel_calls: list[int]):
    count = copied(raw, "copy.raw")
    copy = raw.with_name("copy.raw")
    assert copy.read_bytes() == raw.read_bytes()
    assert sum(kernel_calls) == count < 34 * MIB
    # ext4 keeps a longer list of extents in a block of its own, 8 sectors.
    assert copy.stat().st_blocks <= raw.stat().st_blocks + 8


def test_the_kernel_takes_the_blocks_out_of_a_vhdx(vhdx: Path, kernel_calls: list[int]):
    count = copied(vhdx, "copy.raw")
    assert vhdx.with_name("copy.raw").read_bytes() == expected()
    assert sum(kernel_calls) == count < SIZE


@pytest.mark.parametrize("form", ["qcow2", "vmdk"])
def test_the_kernel_copies_what_is_not_compressed(raw: Path, form: str, kernel_calls: list[int]):
    """Compressed clusters in the first half of the data, plain ones behind."""
    source = raw.with_name("disk.img")
    qemu = ["qemu-img", "convert", "-f", "raw", "-O", form, raw, source]
    subprocess.run([*qemu, *(["-c"] if form == "qcow2" else [])], check=True)
    writes = [f"write -q -P 9 {20 * MIB} {8 * MIB}", f"write -q -z {6 * MIB} {3 * MIB}"]
    for write in writes:
        subprocess.run(["qemu-io", "-f", form, "-c", write, source], check=True)
        subprocess.run(["qemu-io", "-f", "raw", "-c", write, raw], check=True)
    copied(source, "copy.raw")
    argv = ["qemu-img", "compare", "-f", "raw", "-F", "raw", raw, raw.with_name("copy.raw")]
    subprocess.run(argv, check=True, capture_output=True)
    assert sum(kernel_calls) >= 8 * MIB


def test_a_vhdx_is_written_through_memory(raw: Path, kernel_calls: list[int]):
    copied(raw, "copy.vhdx")
    assert not kernel_calls
    argv = ["qemu-img", "compare", "-f", "raw", "-F", "vhdx", str(raw)]
    subprocess.run([*argv, str(raw.with_name("copy.vhdx"))], check=True, capture_output=True)


@pytest.mark.parametrize("cause", [errno.EXDEV, errno.EPERM, errno.ENOENT, 0])
def test_what_the_kernel_does_not_copy_goes_through_memory(
    raw: Path, cause: int, monkeypatch: pytest.MonkeyPatch
):
    """Two file systems; a container that forbids the call; CIFS; one that copies nothing."""
    real, left = os.copy_file_range, [1]

    def refused(*arguments: int) -> int:
        if left:
            left.pop()
            return real(*arguments)
        if not cause:
            return 0
        raise OSError(cause, "not here")

    monkeypatch.setattr(os, "copy_file_range", refused)
    copied(raw, "copy.raw")
    assert raw.with_name("copy.raw").read_bytes() == raw.read_bytes()


def test_a_disk_in_memory_is_copied_to_memory(in_memory: Callable[[bytes], ByteFile]):
    store = MemoryFolder()
    with open_disk(in_memory(small_vhdx())) as disk:
        copy_plainly(disk, RawFileTarget(store, "copy.raw"), silent)
    assert store.read_bytes("copy.raw", SIZE) == expected()
    with store.open_read("copy.raw") as file:
        assert sum(length for _, length in file.allocated_ranges()) < SIZE


def test_progress_ends_at_what_was_to_be_copied(raw: Path):
    events: list[Event] = []
    with opened(raw) as disk:
        target = RawFileTarget(LocalFolder(raw.parent), "copy.raw")
        copy_plainly(disk, target, events.append)
        data = sum(e.length_bytes for e in disk.extents() if e.state is ExtentState.DATA)
    assert events[-1].kind is EventKind.FINISHED
    assert events[-1].done == events[-1].total == data
    assert len(events) > 3


def no_room(_self: LocalWritableFile, *_arguments: object) -> bool:
    raise ShareFull("Cannot write 'copy': no space left.")


@pytest.mark.parametrize("name", ["copy.raw", "copy.vhdx"])
def test_a_full_disk_ends_the_copy_and_leaves_no_file(
    raw: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    real = LocalWritableFile.write_at

    def full_behind_the_head(self: LocalWritableFile, offset: int, data: bytes) -> None:
        if len(data) == MIB:
            raise ShareFull("Cannot write 'copy': no space left.")
        real(self, offset, data)

    monkeypatch.setattr(LocalWritableFile, "copy_from", no_room)
    monkeypatch.setattr(LocalWritableFile, "write_at", full_behind_the_head)
    with pytest.raises(ShareFull):
        copied(raw, name)
    assert [path.name for path in raw.parent.iterdir()] == [raw.name]


class _Full(RawFileTarget):
    """Takes nothing, and cannot be removed either."""

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        raise ShareFull(f"Cannot write 'copy': no room for {len(data)} bytes at {offset_bytes}.")

    def abort(self) -> None:
        super().abort()
        raise ShareError("Cannot delete 'copy'.")


def test_an_error_ends_the_threads_that_unpack_and_is_the_one_told(raw: Path):
    source = raw.with_name("disk.qcow2")
    qemu = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, source]
    subprocess.run(qemu, check=True)
    with opened(source) as disk, pytest.raises(ShareFull) as kept:
        copy_plainly(disk, _Full(LocalFolder(raw.parent), "copy.raw"), silent)
    assert kept.value.__traceback__ is not None  # and with it the frames that were reading
    assert not [one.name for one in threading.enumerate() if one.name.startswith("unpack")]


def test_a_source_that_is_written_meanwhile_is_noticed(raw: Path, monkeypatch: pytest.MonkeyPatch):
    real = LocalWritableFile.copy_from

    def and_somebody_writes(self: LocalWritableFile, source: LocalFile, *places: int) -> bool:
        raw.touch()
        return real(self, source, *places)

    monkeypatch.setattr(LocalWritableFile, "copy_from", and_somebody_writes)
    with pytest.raises(SourceChanged):
        copied(raw, "copy.raw")
    assert [path.name for path in raw.parent.iterdir()] == [raw.name]


def test_a_source_that_was_cut_is_noticed(raw: Path):
    with opened(raw) as disk:
        list(disk.extents())
        os.truncate(raw, MIB)
        target = RawFileTarget(LocalFolder(raw.parent), "copy.raw")
        with pytest.raises(SourceChanged, match="found its end"):
            copy_plainly(disk, target, silent)
