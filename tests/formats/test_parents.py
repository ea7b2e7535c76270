"""A parent is found by the id that its child holds; names only say where to look first."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path

import pytest

from imageport.errors import (
    BadDisk,
    FileLocked,
    FileMissing,
    ImageportError,
    ShareRefused,
    SourceChanged,
    SourceError,
    UnsupportedDisk,
)
from imageport.formats.linked_disk import LinkedDisk
from imageport.formats.opening import open_disk
from imageport.formats.parents import windows_base_name
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder
from tests.formats.chain_bytes import FULL, MIB, Layer, Written, parent_pairs, write_layer

WHOLE = Layer(MIB, blocks={0: (FULL, ())})
EMPTY = Layer(MIB)


@pytest.fixture
def folder() -> MemoryFolder:
    return MemoryFolder("store")


def gold(folder: MemoryFolder, *, base: str = "gold.vhdx") -> Written:
    parent = write_layer(folder, base, WHOLE)
    write_layer(folder, "gold.1.avhdx", EMPTY, parent=parent)
    return parent


def names_of(folder: MemoryFolder, name: str, *, deny_write: bool = False) -> list[str]:
    file = folder.open_read(name, deny_write=deny_write)
    with open_disk(file, folder, deny_write=deny_write) as disk:
        assert isinstance(disk, LinkedDisk)
        return [one.location for one in disk.chain()]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (r".\gold.vhdx", "gold.vhdx"),
        (r"..\..\sub\gold.vhdx", "gold.vhdx"),
        (r"\\?\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\a b.vhdx", "a b.vhdx"),
        ("C:/mixed/gold.vhdx. ", "gold.vhdx"),
        ("gold.vhdx", "gold.vhdx"),
        ("a:b.vhdx", ""),
        ("gold\n.vhdx", ""),
        ("..\\", ""),
        ("..", ""),
        ("", ""),
    ],
)
def test_the_last_part_of_a_windows_path_is_the_name(path: str, name: str) -> None:
    assert windows_base_name(path) == name


def test_a_chain_is_opened_down_to_its_base(folder: MemoryFolder) -> None:
    gold(folder)
    assert names_of(folder, "gold.1.avhdx") == ["store/gold.1.avhdx", "store/gold.vhdx"]


def test_names_are_compared_as_windows_does(folder: MemoryFolder) -> None:
    gold(folder, base="gold.vhdx")
    folder.rename("gold.vhdx", "other")
    folder.rename("other", "GOLD.VHDX")
    assert names_of(folder, "gold.1.avhdx")[1] == "store/GOLD.VHDX"


def test_a_parent_that_was_renamed_is_found_by_its_id(folder: MemoryFolder) -> None:
    gold(folder)
    folder.rename("gold.vhdx", "old name.vhdx")
    write_layer(folder, "another.vhdx", WHOLE)
    folder.write_bytes("notes.vhdx", b"no disk")
    assert names_of(folder, "gold.1.avhdx")[1] == "store/old name.vhdx"


def test_a_file_of_the_right_name_and_the_wrong_id_does_not_count(folder: MemoryFolder) -> None:
    gold(folder)
    folder.rename("gold.vhdx", "right.vhdx")
    write_layer(folder, "gold.vhdx", WHOLE, seed=1)
    assert names_of(folder, "gold.1.avhdx")[1] == "store/right.vhdx"


def test_the_second_linkage_counts_too(folder: MemoryFolder) -> None:
    parent = write_layer(folder, "gold.vhdx", WHOLE)
    pairs = parent_pairs(parent)
    pairs["parent_linkage2"] = pairs["parent_linkage"].upper()
    pairs["parent_linkage"] = "{" + str(uuid.UUID(int=5)) + "}"
    write_layer(folder, "gold.1.avhdx", EMPTY, parent=parent, pairs=pairs)
    assert len(names_of(folder, "gold.1.avhdx")) == 2


def test_a_broken_link_is_refused_with_both_ids_and_names(folder: MemoryFolder) -> None:
    parent = gold(folder)
    folder.delete("gold.vhdx")
    stranger = write_layer(folder, "gold.vhdx", WHOLE, seed=1)
    with pytest.raises(BadDisk) as caught:
        names_of(folder, "gold.1.avhdx")
    error = caught.value
    assert "'store/gold.1.avhdx' was made on a parent with" in error.message
    assert f"'gold.vhdx' with {stranger.data_write_guid}" in error.message
    assert str(parent.data_write_guid) in error.message
    assert error.fields["wanted"] == [str(parent.data_write_guid)]
    assert error.fields["found"] == {"gold.vhdx": str(stranger.data_write_guid)}
    assert "restore" in error.hint


def test_a_parent_that_is_not_there_is_missing_by_name_and_id(folder: MemoryFolder) -> None:
    parent = gold(folder)
    folder.delete("gold.vhdx")
    with pytest.raises(FileMissing, match=r"gold\.vhdx") as caught:
        names_of(folder, "gold.1.avhdx")
    assert str(parent.data_write_guid) in caught.value.message


def test_a_parent_that_is_no_disk_is_told(folder: MemoryFolder) -> None:
    gold(folder)
    folder.write_bytes("gold.vhdx", b"vhdxfile and no more")
    with pytest.raises(BadDisk, match=r"'gold\.vhdx' with no VHDX \(disk-corrupt\)"):
        names_of(folder, "gold.1.avhdx")


def test_a_chain_that_runs_in_a_circle_is_refused(folder: MemoryFolder) -> None:
    first = write_layer(folder, "a.vhdx", EMPTY)
    second = write_layer(folder, "b.avhdx", EMPTY, parent=first)
    folder.delete("a.vhdx")
    write_layer(folder, "a.vhdx", EMPTY, parent=second)  # the same name and id, on top of its child
    for start in ("a.vhdx", "b.avhdx"):
        with pytest.raises(BadDisk, match="above it in the same chain"):
            names_of(folder, start)


def test_a_disk_that_is_its_own_parent_is_refused(folder: MemoryFolder) -> None:
    alone = write_layer(folder, "a.vhdx", EMPTY)
    folder.delete("a.vhdx")
    write_layer(folder, "a.vhdx", EMPTY, parent=alone)
    with pytest.raises(BadDisk, match="above it in the same chain"):
        names_of(folder, "a.vhdx")


def test_a_chain_of_more_files_than_anybody_makes_is_refused(
    folder: MemoryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imageport.formats.parents.LONGEST_CHAIN", 8)
    made = write_layer(folder, "0.vhdx", Layer(512))
    for number in range(1, 9):
        made = write_layer(folder, f"{number}.avhdx", Layer(512), parent=made)
    assert len(names_of(folder, "7.avhdx")) == 8
    with pytest.raises(BadDisk, match="more than 8 files"):
        names_of(folder, "8.avhdx")


def test_a_chain_whose_tables_take_too_much_memory_is_refused(
    folder: MemoryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a few KiB may claim a table of 64 MiB, and a chain has up to 256 files."""
    made = write_layer(folder, "0.vhdx", Layer(512 * MIB, blocks={0: (FULL, ())}))
    for number in (1, 2):
        made = write_layer(folder, f"{number}.avhdx", Layer(512 * MIB), parent=made)
    table_bytes, bitmap_bytes = (2**12 + 1) * 8, 256 * 1024
    with open_disk(folder.open_read("2.avhdx"), folder) as disk:
        assert isinstance(disk, LinkedDisk)
        held = [one.held_bytes for one in disk.chain()]
        assert held == [*[table_bytes + bitmap_bytes] * 2, 512 * 8]
    monkeypatch.setattr("imageport.formats.parents.MOST_HELD_BYTES", sum(held))
    assert len(names_of(folder, "2.avhdx")) == 3
    monkeypatch.setattr("imageport.formats.parents.MOST_HELD_BYTES", sum(held) - 1)
    with pytest.raises(
        UnsupportedDisk, match=rf"of the 3 files .* take {sum(held)} bytes"
    ) as caught:
        names_of(folder, "2.avhdx")
    assert "Merge" in caught.value.hint


def test_a_parent_that_is_open_elsewhere_is_locked_not_missing(folder: MemoryFolder) -> None:
    gold(folder)
    with folder.open_write("gold.vhdx"), pytest.raises(FileLocked, match=r"gold\.vhdx"):
        names_of(folder, "gold.1.avhdx")


@pytest.mark.parametrize("kind", [FileLocked, ShareRefused])
def test_a_file_that_cannot_be_opened_is_an_error_only_for_a_parent(
    folder: MemoryFolder, monkeypatch: pytest.MonkeyPatch, kind: type[ImageportError]
) -> None:
    gold(folder)
    write_layer(folder, "gold.0.vhdx", EMPTY)  # asked before the renamed parent
    real, shut = folder.open_read, {"gold.0.vhdx"}

    def guarded(name: str, *, deny_write: bool = False) -> ByteFile:
        if name in shut:
            raise kind(f"Cannot open '{name}': planted.")
        return real(name, deny_write=deny_write)

    monkeypatch.setattr(folder, "open_read", guarded)
    folder.rename("gold.vhdx", "other.vhdx")
    assert names_of(folder, "gold.1.avhdx")[1] == "store/other.vhdx"
    folder.rename("other.vhdx", "gold.vhdx")
    shut.add("gold.vhdx")
    with pytest.raises(kind, match=r"gold\.vhdx"):
        names_of(folder, "gold.1.avhdx")


@pytest.mark.parametrize("deny_write", [False, True])
def test_a_parent_is_opened_by_the_rule_of_its_child(
    folder: MemoryFolder, monkeypatch: pytest.MonkeyPatch, deny_write: bool
) -> None:
    gold(folder)
    file = folder.open_read("gold.1.avhdx", deny_write=deny_write)
    rules: list[bool] = []
    real = folder.open_read

    def noted(name: str, *, deny_write: bool = False) -> ByteFile:
        rules.append(deny_write)
        return real(name, deny_write=deny_write)

    monkeypatch.setattr(folder, "open_read", noted)
    open_disk(file, folder, deny_write=deny_write).close()
    assert rules == [False, deny_write]  # first its headers alone


def test_nothing_stays_open_whatever_fails(
    folder: MemoryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_layer(folder, "gold.vhdx", WHOLE)
    one = write_layer(folder, "gold.1.avhdx", EMPTY, parent=base)
    write_layer(folder, "gold.2.avhdx", EMPTY, parent=one)
    opened: list[ByteFile] = []
    closed: list[int] = []
    real = folder.open_read

    def noted(name: str, *, deny_write: bool = False) -> ByteFile:
        file = real(name, deny_write=deny_write)
        opened.append(file)
        close = file.close
        file.close = lambda: (closed.append(id(file)), close())  # type: ignore[method-assign,assign,func-returns-value]
        return file

    monkeypatch.setattr(folder, "open_read", noted)
    folder.delete("gold.vhdx")
    with pytest.raises(SourceError):
        names_of(folder, "gold.2.avhdx", deny_write=True)
    write_layer(folder, "gold.vhdx", WHOLE, seed=9)
    with pytest.raises(SourceError):
        names_of(folder, "gold.2.avhdx", deny_write=True)
    assert len(opened) > 5
    assert {id(file) for file in opened} == set(closed)


def test_a_change_of_any_file_of_the_chain_is_a_changed_source(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    parent = write_layer(folder, "gold.vhdx", WHOLE)
    write_layer(folder, "gold.1.avhdx", EMPTY, parent=parent)
    with open_disk(folder.open_read("gold.1.avhdx"), folder) as disk:
        disk.check_unchanged()
        key = disk.content_key()
        with (tmp_path / "gold.vhdx").open("r+b") as file:
            file.seek(5 * MIB)
            file.write(b"x")
        with pytest.raises(SourceChanged, match=r"gold\.vhdx"):
            disk.check_unchanged()
    with open_disk(folder.open_read("gold.1.avhdx"), folder) as disk:
        assert disk.content_key() != key


def test_a_parent_swapped_while_the_chain_is_opened_is_refused(
    folder: MemoryFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold(folder)
    write_layer(folder, "stranger", WHOLE, seed=3)
    real = folder.open_read
    calls = itertools.count()

    def swapped(name: str, *, deny_write: bool = False) -> ByteFile:
        if name == "gold.vhdx" and next(calls):  # the first time only its headers are read
            name = "stranger"
        return real(name, deny_write=deny_write)

    monkeypatch.setattr(folder, "open_read", swapped)
    with pytest.raises(BadDisk, match="was made on a parent with"):
        open_disk(real("gold.1.avhdx"), folder)


def test_a_child_of_another_format_needs_a_parent_of_its_own(folder: MemoryFolder) -> None:
    gold(folder)
    folder.rename("gold.vhdx", "gold.raw.vhdx")
    folder.write_bytes("gold.vhdx", bytes(510) + b"\x55\xaa" + bytes(MIB - 512))
    assert names_of(folder, "gold.1.avhdx")[1] == "store/gold.raw.vhdx"


def test_a_chain_without_a_folder_is_refused_with_a_hint(folder: MemoryFolder) -> None:
    gold(folder)
    with pytest.raises(UnsupportedDisk, match=r"differences to its parent 'gold\.vhdx'"):
        open_disk(folder.open_read("gold.1.avhdx"))
