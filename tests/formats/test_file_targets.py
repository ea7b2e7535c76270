"""File targets beyond the contract that every block target passes (tests/transfer)."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from pathlib import Path

import pytest

from imageport.errors import InputError, NameTaken, ResourceGone, ShareFull, TransferError
from imageport.formats._touched_blocks import TouchedBlocks
from imageport.formats.file_target import OWN_SUFFIX, FileTarget
from imageport.formats.raw_target import RawFileTarget
from imageport.formats.vhd_target import FixedVhdFileTarget, VhdFileTarget
from imageport.formats.vhdx import VhdxDisk
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.model import BLOCK_BYTES, MIB, ZERO_BLOCK, ZERO_DIGEST, ExtentState
from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder
from imageport.transfer.block_target import TransferPlan

SIZE = 20 * MIB + 512
PLAN = TransferPlan(SIZE, (), (), 0)
LAST = SIZE // BLOCK_BYTES
KINDS = [VhdxFileTarget, RawFileTarget, VhdFileTarget, FixedVhdFileTarget]


def put(target: FileTarget, index: int, seed: int = 1) -> bytes:
    data = random.Random(seed).randbytes(BLOCK_BYTES)  # noqa: S311
    if index == LAST:
        data = data[:512].ljust(BLOCK_BYTES, b"\0")
    target.put(index, data, hashlib.sha256(data).digest())
    return data


def fill(target: FileTarget) -> None:
    for index in range(LAST):
        put(target, index)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_block_reaches_past_the_disk_and_reads_back_padded(
    folder: LocalFolder, kind: type[FileTarget]
) -> None:
    target = kind(folder, "x.part")
    target.begin(PLAN, "t")
    data = put(target, LAST)
    assert target.commit({}) == "x.part"
    assert list(target.read_back([LAST, 0])) == [(0, ZERO_BLOCK), (LAST, data)]
    with target.open_written() as disk:
        assert disk.size_bytes == SIZE


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_folder_passes_through_and_abort_leaves_nothing(kind: type[FileTarget]) -> None:
    store = MemoryFolder(capacity_bytes=6 * MIB)
    target = kind(store, "x.part")
    target.begin(PLAN, "t")
    with pytest.raises(ShareFull):
        fill(target)
    target.abort()
    assert store.list() == []


def test_a_folder_that_is_full_from_the_start_holds_nothing_afterwards() -> None:
    store = MemoryFolder(capacity_bytes=64 * 1024)
    with pytest.raises(ShareFull):
        VhdxFileTarget(store, "x.part").begin(PLAN, "t")
    assert store.list() == []


@pytest.mark.parametrize("kind", KINDS)
def test_somebody_elses_file_is_neither_replaced_nor_removed(
    folder: LocalFolder, kind: type[FileTarget]
) -> None:
    (folder.root / "x.part").write_bytes(b"precious" * 1000)
    target = kind(folder, "x.part")
    with pytest.raises(NameTaken):
        target.begin(PLAN, "t")
    target.abort()
    assert (folder.root / "x.part").read_bytes() == b"precious" * 1000


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("kind", [VhdxFileTarget, VhdFileTarget, FixedVhdFileTarget])
def test_what_a_killed_run_left_is_replaced_by_a_new_one(
    folder: LocalFolder, kind: type[FileTarget], *, finished: bool
) -> None:
    left = kind(folder, "x.part")
    left.begin(TransferPlan(64 * MIB, (), (), 0), "other")
    put(left, 0)
    if finished:
        left.commit({})
    left.close()
    target = kind(folder, "x.part")
    target.begin(PLAN, "t")
    data = put(target, 3)
    target.commit({})
    assert dict(target.read_back([0, 3])) == {0: ZERO_BLOCK, 3: data}


@pytest.mark.parametrize("left_by", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_leftover_of_any_format_is_replaced_when_its_name_marks_it_as_ours(
    folder: LocalFolder, kind: type[FileTarget], left_by: type[FileTarget]
) -> None:
    left = left_by(folder, "x" + OWN_SUFFIX)
    left.begin(TransferPlan(64 * MIB, (), (), 0), "other")
    put(left, 0)
    left.close()
    target = kind(folder, "x" + OWN_SUFFIX)
    target.begin(PLAN, "t")
    target.commit({})
    with target.open_written() as disk:
        assert disk.size_bytes == SIZE
    assert dict(target.read_back([0])) == {0: ZERO_BLOCK}


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_file_of_another_size_cannot_be_resumed(
    folder: LocalFolder, kind: type[FileTarget]
) -> None:
    target = kind(folder, "x.part")
    handle = target.begin(PLAN, "t")
    target.close()
    with pytest.raises(ResourceGone):
        kind(folder, "x.part").resume(TransferPlan(64 * MIB, (), (), 0), handle)
    folder.open_write("x.part").close()  # and it is not left open


@pytest.mark.parametrize("content", [b"", b"junk" * 500, b"vhdxfile" + bytes(1 << 20)])
@pytest.mark.parametrize("kind", [VhdxFileTarget, VhdFileTarget, FixedVhdFileTarget])
def test_a_part_file_that_is_not_ours_cannot_be_resumed(
    folder: LocalFolder, kind: type[FileTarget], content: bytes
) -> None:
    (folder.root / "x.part").write_bytes(content)
    with pytest.raises(ResourceGone):
        kind(folder, "x.part").resume(PLAN, "x.part")


@pytest.mark.parametrize("kind", [VhdFileTarget, FixedVhdFileTarget])
def test_a_disk_of_4_kib_sectors_is_no_vhd(folder: LocalFolder, kind: type[VhdFileTarget]) -> None:
    with pytest.raises(InputError, match="needed 512: VHD knows no others"):
        kind(folder, "x.part", sector_bytes=4096)
    assert list(folder.root.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_over_what_a_killed_run_may_have_written_are_written(
    folder: LocalFolder, kind: type[FileTarget]
) -> None:
    first = kind(folder, "x.part")
    handle = first.begin(PLAN, "t")
    put(first, 2)
    first.flush()
    first.close()
    again = kind(folder, "x.part")
    again.resume(PLAN, handle)
    again.put(2, ZERO_BLOCK, ZERO_DIGEST)
    again.commit({})
    assert dict(again.read_back([2])) == {2: ZERO_BLOCK}


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_over_what_was_written_inside_a_block_are_written(
    folder: LocalFolder, kind: type[FileTarget]
) -> None:
    target = kind(folder, "x.part")
    target.begin(PLAN, "t")
    target.write_at(3 * BLOCK_BYTES - 512, b"d" * 1024)  # the end of one, the start of another
    target.put(2, ZERO_BLOCK, ZERO_DIGEST)
    target.put(3, ZERO_BLOCK, ZERO_DIGEST)
    target.commit({})
    assert dict(target.read_back([2, 3])) == {2: ZERO_BLOCK, 3: ZERO_BLOCK}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_past_the_end_of_the_disk(
    folder: LocalFolder, kind: type[FileTarget]
) -> None:
    target = kind(folder, "x.part")
    target.begin(PLAN, "t")
    for offset in (SIZE - 511, SIZE, -512):
        with pytest.raises(InputError, match=f"the disk has {SIZE}"):
            target.write_at(offset, b"d" * 512)
    target.commit({})
    with target.open_written() as disk:
        assert disk.size_bytes == SIZE


@pytest.mark.parametrize("kind", [VhdxFileTarget, VhdFileTarget])
def test_reading_back_a_hole_makes_no_zeros_of_its_own(
    folder: LocalFolder, kind: type[FileTarget]
) -> None:
    """Terabytes of holes are compared at the speed of comparing one object with itself."""
    target = kind(folder, "x.part")
    target.begin(PLAN, "t")
    target.commit({})
    assert all(data is ZERO_BLOCK for _, data in target.read_back(range(LAST)))


def test_the_blocks_of_a_whole_2_tib_disk_are_marked_in_little_memory() -> None:
    tracemalloc.start()
    touched = TouchedBlocks(2 * 2**40 - 512)
    for start in range(0, 2 * 2**40 - MIB, 64 * MIB):
        touched.mark(start + 1, 64 * MIB - 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert touched.has(0)
    assert touched.has(2 * 2**40 - 513)
    assert peak < 5 * MIB


def test_zero_blocks_of_a_new_vhdx_take_no_room(folder: LocalFolder) -> None:
    target = VhdxFileTarget(folder, "x.part", block_bytes=MIB)
    target.begin(PLAN, "t")
    for index in range(LAST):
        target.put(index, ZERO_BLOCK, ZERO_DIGEST)
    put(target, 8)
    target.commit({})
    with VhdxDisk(folder.open_read("x.part")) as disk:
        data = [e.length_bytes for e in disk.extents() if e.state is ExtentState.DATA]
        assert sum(data) == BLOCK_BYTES
        assert disk.details()["allocated_blocks"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_target_takes_no_blocks(folder: LocalFolder, kind: type[FileTarget]) -> None:
    target = kind(folder, "x.part")
    target.begin(PLAN, "t")
    target.close()
    with pytest.raises(TransferError):
        put(target, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_committed_file_can_be_renamed_at_once(
    folder: LocalFolder, kind: type[FileTarget]
) -> None:
    target = kind(folder, "x.part")
    target.begin(PLAN, "t")
    put(target, 1)
    folder.rename(target.commit({}), "x")
    target.abort()
    assert [entry.name for entry in folder.list()] == ["x"]


class _SparseNoted(MemoryFolder):
    """Notes which files were marked sparse."""

    def is_sparse(self, name: str) -> bool:
        return self._content("look at", name).sparse


@pytest.mark.parametrize("sparse", [True, False])
def test_a_vhdx_carries_the_sparse_mark_only_when_asked(*, sparse: bool) -> None:
    # Windows does not attach a VHDX that carries it.
    store: Folder = _SparseNoted()
    target = VhdxFileTarget(store, "x.part", sparse=sparse)
    target.begin(PLAN, "t")
    target.commit({})
    assert isinstance(store, _SparseNoted)
    assert store.is_sparse("x.part") is sparse


def test_a_real_file_system_that_runs_full_leaves_nothing(tmp_path: Path) -> None:
    import subprocess  # noqa: PLC0415

    tmp_path.joinpath("small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path / "small")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        target = VhdxFileTarget(LocalFolder(tmp_path / "small"), "x.part")
        target.begin(PLAN, "t")
        with pytest.raises(ShareFull):
            fill(target)
        target.abort()
        assert list((tmp_path / "small").iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)
