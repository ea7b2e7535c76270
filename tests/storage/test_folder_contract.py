"""What every folder promises, run over all of them: local disk, memory, a real file server."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageport.errors import FileLocked, FileMissing, InputError, NameTaken, SourceChanged
from imageport.storage.folder import Folder

MIB = 1024 * 1024


def fill(folder: Folder, name: str, data: bytes) -> None:
    with folder.create(name) as file:
        file.write_at(0, data)
        file.flush()


def test_what_was_written_is_read_back(folder: Folder):
    fill(folder, "gold.vhdx", b"golden image")
    with folder.open_read("gold.vhdx") as file:
        assert file.size_bytes == 12
        assert file.read_at(7, 5) == b"image"
        assert file.read_at(3, 0) == b""


def test_a_written_file_tells_its_size_while_it_grows(folder: Folder):
    with folder.create("grows") as file:
        assert file.size_bytes == 0
        file.write_at(100, b"x")
        assert file.size_bytes == 101
        assert file.read_at(0, 101) == bytes(100) + b"x"


def test_reading_past_the_end_means_the_file_changed(folder: Folder):
    fill(folder, "short", b"1234")
    with folder.open_read("short") as file, pytest.raises(SourceChanged, match="end"):
        file.read_at(2, 3)


def test_a_file_that_is_not_there_is_missing(folder: Folder):
    with pytest.raises(FileMissing, match=r"nothing\.vhdx"):
        folder.open_read("nothing.vhdx")
    with pytest.raises(FileMissing):
        folder.open_write("nothing.vhdx")
    with pytest.raises(FileMissing):
        folder.rename("nothing.vhdx", "other")
    with pytest.raises(FileMissing):
        folder.set_last_write("nothing.vhdx", 0)
    with pytest.raises(FileMissing):
        folder.create("no-such-folder/file")
    with pytest.raises(FileMissing):
        folder.list("no-such-folder")
    assert folder.stat("nothing.vhdx") is None
    assert folder.stat("no-such-folder/file") is None
    folder.delete("nothing.vhdx")


def test_a_folder_is_neither_opened_nor_deleted_as_a_file(folder: Folder):
    folder.make_folder("sub")
    with pytest.raises(FileMissing, match="is a folder"):
        folder.open_read("sub")
    with pytest.raises(FileMissing, match="is a folder"):
        folder.delete("sub")
    stat = folder.stat("sub")
    assert stat is not None
    assert stat.is_folder


def test_an_existing_name_is_never_taken_over(folder: Folder):
    fill(folder, "gold.vhdx", b"first")
    with pytest.raises(NameTaken, match=r"gold\.vhdx"):
        folder.create("gold.vhdx")
    assert folder.read_bytes("gold.vhdx") == b"first"


def test_only_one_of_many_creates_a_name(folder: Folder):
    def attempt(_number: int) -> bool:
        try:
            folder.create("lease").close()
        except NameTaken:
            return False
        except FileLocked:  # somebody is just creating it
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_rename_moves_and_never_replaces(folder: Folder):
    fill(folder, "a.part", b"new")
    fill(folder, "b", b"old")
    with pytest.raises(NameTaken):
        folder.rename("a.part", "b")
    assert folder.read_bytes("b") == b"old"
    folder.rename("a.part", "c")
    assert folder.read_bytes("c") == b"new"
    assert folder.stat("a.part") is None


def test_rename_replaces_when_told(folder: Folder):
    fill(folder, "a.part", b"new")
    fill(folder, "b", b"old, and longer")
    folder.rename("a.part", "b", replace=True)
    assert folder.read_bytes("b") == b"new"
    assert [entry.name for entry in folder.list()] == ["b"]


def test_a_small_file_is_replaced_whole_while_others_read_it(folder: Folder):
    versions = [bytes([65 + number]) * 5000 for number in range(10)]
    folder.write_bytes("record.json", versions[0])
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(folder.read_bytes("record.json"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in versions:
            folder.write_bytes("record.json", version)
    finally:
        stop.set()
        reader.join()
    assert seen <= set(versions)
    assert folder.read_bytes("record.json") == versions[-1]
    assert [entry.name for entry in folder.list()] == ["record.json"]


def test_a_small_file_that_is_not_small_is_refused(folder: Folder):
    fill(folder, "big", bytes(1000))
    with pytest.raises(InputError, match="found 1000 bytes, needed at most 999"):
        folder.read_bytes("big", limit_bytes=999)


def test_listing_is_sorted_and_tells_sizes_and_folders(folder: Folder):
    fill(folder, "b", b"12")
    fill(folder, "a", b"1")
    folder.make_folder("c/d")
    entries = folder.list()
    assert [(e.name, e.size_bytes, e.is_folder) for e in entries] == [
        ("a", 1, False), ("b", 2, False), ("c", 0, True),
    ]  # fmt: skip
    assert [entry.name for entry in folder.list("c")] == ["d"]
    stat = folder.stat("c")
    assert stat is not None
    assert stat.is_folder


def test_folders_are_made_with_parents_and_twice(folder: Folder):
    folder.make_folder("x/y/z")
    folder.make_folder("x/y/z")
    fill(folder, "x/y/z/file", b"deep")
    assert folder.read_bytes("x/y/z/file") == b"deep"
    folder.rename("x/y/z/file", "x/moved")
    assert folder.read_bytes("x/moved") == b"deep"
    folder.delete("x/moved")
    assert folder.stat("x/moved") is None


def test_a_name_under_a_file_is_no_folder(folder: Folder):
    fill(folder, "file", b"")
    with pytest.raises((NameTaken, FileMissing)):
        folder.make_folder("file/below")


def test_the_time_of_the_last_write_is_kept(folder: Folder):
    fill(folder, "gold.vhdx", b"x")
    folder.set_last_write("gold.vhdx", 1_700_000_000_123_456_700)
    stat = folder.stat("gold.vhdx")
    assert stat is not None
    assert stat.last_write_ns == 1_700_000_000_123_456_700
    with folder.open_read("gold.vhdx") as file:
        assert file.identity().last_write_ns == 1_700_000_000_123_456_700


def test_identity_is_stable_and_changes_with_the_content(folder: Folder):
    fill(folder, "gold.vhdx", b"x")
    with folder.open_read("gold.vhdx") as file:
        before = file.identity()
        assert file.identity() == before
        assert before.size_bytes == 1
    folder.set_last_write("gold.vhdx", 1_700_000_000_000_000_000)
    with folder.open_write("gold.vhdx") as writer:
        writer.write_at(1, b"y")
    with folder.open_read("gold.vhdx") as file:
        after = file.identity()
    assert after.size_bytes == 2
    assert after.file_id == before.file_id
    assert after.key() != before.key()


def test_a_replaced_file_has_another_identity(folder: Folder):
    fill(folder, "gold.vhdx", b"x")
    fill(folder, "new", b"x")
    with folder.open_read("gold.vhdx") as file:
        before = file.identity()
    folder.rename("new", "gold.vhdx", replace=True)
    with folder.open_read("gold.vhdx") as file:
        assert file.identity().file_id != before.file_id


def test_a_writer_excludes_everybody(folder: Folder):
    with folder.create("gold.vhdx") as writer:
        writer.write_at(0, b"x")
        with pytest.raises(FileLocked, match=r"gold\.vhdx"):
            folder.open_read("gold.vhdx")
        with pytest.raises(FileLocked):
            folder.open_read("gold.vhdx", deny_write=True)
        with pytest.raises(FileLocked):
            folder.open_write("gold.vhdx")
        with pytest.raises(FileLocked):
            folder.delete("gold.vhdx")
        with pytest.raises(FileLocked):
            folder.rename("gold.vhdx", "other")
    folder.open_read("gold.vhdx").close()


def test_a_reader_that_denies_writing_keeps_writers_out_and_lets_readers_in(folder: Folder):
    fill(folder, "gold.vhdx", b"x")
    with folder.open_read("gold.vhdx", deny_write=True) as first:
        with pytest.raises(FileLocked):
            folder.open_write("gold.vhdx")
        with folder.open_read("gold.vhdx") as second:
            assert first.read_at(0, 1) == second.read_at(0, 1)
        with folder.open_read("gold.vhdx", deny_write=True) as third:
            assert third.read_at(0, 1) == b"x"
    folder.open_write("gold.vhdx").close()


def test_holes_of_a_sparse_file_are_told(folder: Folder):
    with folder.create("sparse.vhdx") as file:
        file.set_sparse()
        file.set_size(64 * MIB)
        file.write_at(8 * MIB, os.urandom(MIB))
        file.write_at(40 * MIB, os.urandom(MIB))
        file.flush()
    with folder.open_read("sparse.vhdx") as file:
        ranges = file.allocated_ranges()
        assert file.size_bytes == 64 * MIB
        covered = {
            mib
            for start, length in ranges
            for mib in range(start // MIB, -(-(start + length) // MIB))
        }
        assert covered == {8, 40}
        assert file.read_at(9 * MIB, 4096) == bytes(4096)


def test_a_file_of_one_hole_has_no_ranges(folder: Folder):
    with folder.create("empty.vhdx") as file:
        file.set_sparse()
        file.set_size(16 * MIB)
    with folder.open_read("empty.vhdx") as file:
        assert file.allocated_ranges() == []


def test_an_empty_file_has_no_ranges(folder: Folder):
    folder.create("empty").close()
    with folder.open_read("empty") as file:
        assert file.allocated_ranges() == []
        assert list(file.read_many([])) == []


def test_cutting_and_extending_leaves_zeros(folder: Folder):
    with folder.create("cut") as file:
        file.set_sparse()
        file.write_at(0, b"abcdef")
        file.set_size(3)
        file.set_size(6)
        assert file.read_at(0, 6) == b"abc\0\0\0"


def test_an_existing_file_is_changed_in_place(folder: Folder):
    fill(folder, "part", b"abcdef")
    with folder.open_write("part") as file:
        file.write_at(2, memoryview(b"XY"))
        assert file.read_at(0, 6) == b"abXYef"
    assert folder.read_bytes("part") == b"abXYef"


def test_many_ranges_are_read_in_order_in_pieces_of_a_mebibyte(folder: Folder):
    data = os.urandom(5 * MIB + 123)
    fill(folder, "data", data)
    ranges = [(0, 3 * MIB + 5), (4 * MIB, MIB + 123), (10, 20)]
    with folder.open_read("data") as file:
        pieces = list(file.read_many(ranges))
    assert all(len(piece) <= MIB for _, piece in pieces)
    assert all(data[start : start + len(piece)] == piece for start, piece in pieces)
    expected = [start for begin, length in ranges for start in range(begin, begin + length, MIB)]
    assert [start for start, _ in pieces] == expected
    assert sum(len(piece) for _, piece in pieces) == sum(length for _, length in ranges)


def test_reading_many_ranges_can_be_left_early(folder: Folder):
    fill(folder, "data", os.urandom(8 * MIB))
    with folder.open_read("data") as file:
        pieces = file.read_many([(0, 8 * MIB)])
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        assert len(file.read_at(7 * MIB, MIB)) == MIB


def test_sixty_four_threads_read_one_file(folder: Folder):
    data = os.urandom(8 * MIB)
    fill(folder, "data", data)
    with folder.open_read("data") as file, ThreadPoolExecutor(64) as pool:

        def right(number: int) -> bool:
            start = number * 100_003 % (8 * MIB - 70_000)
            return file.read_at(start, 70_000) == data[start : start + 70_000]

        assert all(pool.map(right, range(256)))


def test_several_threads_write_one_file(folder: Folder):
    blocks = [os.urandom(100_000) for _ in range(32)]
    with folder.create("data") as file:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: file.write_at(n * 100_000, blocks[n]), reversed(range(32))))
        file.flush()
    assert folder.read_bytes("data") == b"".join(blocks)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "C:x",
        "a\\..\\..\\x",
        "x\0y",
        "a//b",
        "./x",
        "",
        "a/",
        "..",
    ],
)
def test_names_that_leave_the_folder_are_refused(folder: Folder, name: str):
    operations = [
        lambda: folder.open_read(name),
        lambda: folder.create(name),
        lambda: folder.open_write(name),
        lambda: folder.stat(name),
        lambda: folder.delete(name),
        lambda: folder.rename("good", name),
        lambda: folder.rename(name, "good"),
        lambda: folder.set_last_write(name, 0),
    ]
    for operation in operations:
        with pytest.raises(InputError, match="Bad name"):
            operation()


def test_free_space_is_a_number_of_bytes(folder: Folder):
    assert folder.free_bytes() > MIB


def test_closing_twice_is_allowed(folder: Folder):
    fill(folder, "x", b"x")
    file = folder.open_read("x")
    file.close()
    file.close()
    writer = folder.open_write("x")
    writer.close()
    writer.close()
    folder.close()
    folder.close()


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    writes=st.lists(
        st.tuples(st.integers(0, 300_000), st.binary(min_size=1, max_size=3000)), max_size=8
    ),
    size=st.integers(0, 300_000),
)
def test_a_file_behaves_like_an_array_of_bytes(
    folder: Folder, writes: list[tuple[int, bytes]], size: int
):
    expected = bytearray()
    folder.delete("model")
    with folder.create("model") as file:
        file.set_sparse()
        for offset, data in writes:
            file.write_at(offset, data)
            expected.extend(bytes(max(0, offset + len(data) - len(expected))))
            expected[offset : offset + len(data)] = data
        file.set_size(size)
        expected = expected[:size].ljust(size, b"\0")
        file.flush()
    with folder.open_read("model") as file:
        assert file.size_bytes == size
        assert file.read_at(0, size) == bytes(expected)
        for start, end in _gaps(file.allocated_ranges(), size):
            assert not any(expected[start:end])


def _gaps(ranges: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    gaps, position = [], 0
    for start, length in ranges:
        assert start >= position
        gaps.append((position, start))
        position = start + length
    assert position <= size
    return [*gaps, (position, size)]
