"""Hives: base blocks, typed values, and our edits read by libhivex' own programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.compose.hives.base_block import HiveHeader
from imageport.compose.hives.hive import Hive, Key
from imageport.compose.hives.registry_value import Kind, Value
from imageport.compose.hives.soundness import hive_problem
from imageport.errors import EngineFailed
from imageport.sandbox.sample.hives import base_block_checksum, empty_hive, make_hive
from tests.compose.hive_builder import Node, build_hive


@pytest.fixture
def hive_file(tmp_path: Path) -> Path:
    path = tmp_path / "TEST"
    text = (
        "[HKEY_LOCAL_MACHINE\\TEST\\Key]\n"
        '"Number"=dword:0000002a\n"Text"="hello"\n'
        '"Many"=hex(7):61,00,00,00,62,00,00,00,00,00\n@="the default"\n\n'
        "[HKEY_LOCAL_MACHINE\\TEST\\Key\\Below]\n\n"
    )
    make_hive(path, "HKEY_LOCAL_MACHINE\\TEST", [text])
    return path


def with_sequences(first: int, second: int) -> bytes:
    block = bytearray(empty_hive("X")[:512])
    block[4:12] = first.to_bytes(4, "little") + second.to_bytes(4, "little")
    block[508:512] = base_block_checksum(bytes(block)).to_bytes(4, "little")
    return bytes(block)


def test_equal_sequence_numbers_are_clean_and_unequal_ones_dirty() -> None:
    clean, dirty = HiveHeader.parse(with_sequences(7, 7)), HiveHeader.parse(with_sequences(8, 7))
    assert (clean.is_dirty, clean.problem) == (False, "")
    assert (dirty.is_dirty, dirty.sequence1, dirty.sequence2) == (True, 8, 7)


def test_a_wrong_checksum_names_offset_found_and_needed() -> None:
    block = bytearray(with_sequences(1, 1))
    block[100] ^= 1
    problem = HiveHeader.parse(bytes(block)).problem
    assert "offset 508" in problem
    assert "found checksum" in problem


@given(st.binary(max_size=600))
def test_any_bytes_get_a_header_and_never_an_exception(data: bytes) -> None:
    header = HiveHeader.parse(data)
    assert header.problem or data[:4] == b"regf"


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_dirty_means_unequal_for_all_numbers(first: int, second: int) -> None:
    header = HiveHeader.parse(with_sequences(first, second))
    assert header.is_dirty == (first != second)
    assert not header.problem


def test_values_are_read_by_type(hive_file: Path) -> None:
    with Hive(hive_file) as hive:
        key = hive.key("key")
        assert key is not None
        assert {child.name for child in key.children()} == {"Below"}
        values = key.values()
        assert values["Number"].as_number() == 42
        assert values["Text"].as_text() == "hello"
        assert values["Many"].as_texts() == ["a", "b"]
        default = key.value("")
        assert default is not None
        assert default.as_text() == "the default"
        assert hive.value("Key", "Missing") is None
        assert hive.value("No\\Such", "Key") is None


def test_what_we_write_hivexregedit_reads(hive_file: Path) -> None:
    with Hive(hive_file, writable=True) as hive:
        hive.ensure("Key\\New\\Deep").set("Start", Value.dword(4))
        key = hive.ensure("Key")
        key.set("NUMBER", Value.dword(7))
        key.set("Path", Value.expandable("%SystemRoot%\\x"))
        key.set("List", Value.texts(["one", "two"]))
        key.delete_value("text")
        below = hive.key("Key\\Below")
        assert below is not None
        below.delete()
        hive.commit()
    done = subprocess.run(
        ["hivexregedit", "--export", "--unsafe-printable-strings", hive_file, "\\Key"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"Number"=dword:00000007' in done.stdout
    assert '"Start"=dword:00000004' in done.stdout
    assert "[\\Key\\New\\Deep]" in done.stdout
    assert "Below" not in done.stdout
    assert '"Text"' not in done.stdout
    assert '"Many"' in done.stdout


def test_a_hive_that_is_not_writable_refuses_changes(hive_file: Path) -> None:
    before = hive_file.read_bytes()
    with Hive(hive_file) as hive, pytest.raises(EngineFailed):
        hive.ensure("Key").set("X", Value.dword(1))
    assert hive_file.read_bytes() == before


@pytest.mark.parametrize("data", [b"", b"regf", b"\0" * 8192, b"MZ" + b"\0" * 5000])
def test_what_is_no_hive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "HIVE"
    path.write_bytes(data)
    with pytest.raises(EngineFailed, match="Cannot open registry hive 'HIVE'"):
        Hive(path)


def test_a_closed_hive_says_so(hive_file: Path) -> None:
    hive = Hive(hive_file)
    hive.close()
    hive.close()
    with pytest.raises(EngineFailed, match="closed"):
        hive.key("Key")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value.dword(3), "REG_DWORD 3"),
        (Value.text("a"), "REG_SZ a"),
        (Value.expandable("%x%"), "REG_EXPAND_SZ %x%"),
        (Value.texts(["a", "b"]), "REG_MULTI_SZ a | b"),
        (Value.text("a\r\nb\x1b[1A"), "REG_SZ a\\x0d\\x0ab\\x1b[1A"),
        (Value.texts(["a\tb", "Schl\u00fcssel"]), "REG_MULTI_SZ a\\x09b | Schl\u00fcssel"),
        (Value(Kind.BINARY, b"\x01\x02"), "REG_BINARY 0102"),
        (Value(Kind.DWORD, b"\x01"), "REG_DWORD 01"),
        (Value(0xFFFF0007, b"\x01"), "type 0xffff0007 01"),
    ],
)
def test_values_render_in_one_line(value: Value, text: str) -> None:
    assert value.render() == text


def test_a_long_binary_value_renders_as_its_digest() -> None:
    assert Value(Kind.BINARY, bytes(65)).render().startswith("REG_BINARY 65 bytes sha256:")


@given(st.integers(0, 0xFFFFFFFF), st.binary(max_size=64))
def test_any_value_renders_and_reads_without_exception(kind: int, data: bytes) -> None:
    value = Value(kind, data)
    assert "\0" not in value.as_text()
    assert value.render()
    assert isinstance(value.as_texts(), list)


MOST, BIG = 16_344, 20_000
"""What Windows keeps in one cell since minor version 4, and what it keeps in pieces."""


@pytest.fixture
def big_value(tmp_path: Path) -> Path:
    """A hive as Windows 10 has them: a key with a value in pieces, and small ones beside it."""
    path = tmp_path / "BIG"
    values = {"Big": (3, bytes(BIG)), "Small": (4, bytes(4))}
    device = {"Property": (0xFFFF2012, b"abc")}
    path.write_bytes(build_hive(Node(children=[Node("Key", values), Node("Other", device)])))
    return path


def test_a_key_with_a_value_in_pieces_is_not_changed(big_value: Path) -> None:
    with Hive(big_value, writable=True) as hive:
        key = hive.ensure("Key")
        needed = "found value 'Big' of 20000 bytes, needed 16344 or less"
        with pytest.raises(EngineFailed, match=needed):
            key.set("Small", Value.dword(1))
        with pytest.raises(EngineFailed, match=needed):
            key.delete_value("Small")
        with pytest.raises(EngineFailed, match="found value 'New' of 16345 bytes"):
            hive.ensure("Other").set("New", Value(Kind.BINARY, bytes(MOST + 1)))
        key.delete_value("Big")
        key.set("Small", Value(Kind.BINARY, bytes(MOST)))
        hive.commit()
    assert hive_problem(big_value.read_bytes()) == ""


def test_what_libhivex_would_make_of_such_a_value_is_damage(
    big_value: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Key, "_check_size", lambda *_: None)
    with Hive(big_value, writable=True) as hive:
        hive.ensure("Key").set("Small", Value.dword(1))
        hive.commit()
    assert "needed 'db'" in hive_problem(big_value.read_bytes())


def test_an_older_hive_keeps_any_value_in_one_cell(tmp_path: Path) -> None:
    path = tmp_path / "OLD"
    path.write_bytes(build_hive(Node(), minor=3))
    with Hive(path, writable=True) as hive:
        hive.ensure("Key").set("Big", Value(Kind.BINARY, bytes(BIG)))
        hive.commit()
    assert hive_problem(path.read_bytes()) == ""


def test_types_of_device_properties_are_read_and_written_alike(big_value: Path) -> None:
    with Hive(big_value, writable=True) as hive:
        key = hive.ensure("Other")
        assert key.value("Property") == Value(0xFFFF2012, b"abc")
        key.set("Copy", Value(0xFFFF2012, b"abc"))
        hive.commit()
    with Hive(big_value) as hive:
        assert hive.value("Other", "Copy") == Value(0xFFFF2012, b"abc")


def test_a_value_that_libhivex_does_not_hand_out_is_named_as_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "HUGE"
    path.write_bytes(build_hive(Node(values={"Huge": (3, bytes(9_000_000))})))
    with Hive(path) as hive, pytest.raises(EngineFailed, match="libhivex returned no data"):
        hive.value("", "Huge")
