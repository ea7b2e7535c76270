"""Descriptors of what we add, against bytes and a reading written by others."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.compose.volumes.descriptors import (
    ADMINISTRATORS,
    FULL,
    READ_AND_EXECUTE,
    SYSTEM,
    USERS,
    Access,
    describe,
    entries_of,
    who_else_may_write,
)
from imageport.errors import BadDisk

EVERYONE_FULL = bytes.fromhex(
    "01000480140000002400000000000000340000000102000000000005200000002002000001020000"
    "000000052000000020020000"
    "02001c00010000000003140"
    "0ff011f00010100000000000100000000"
)
"""What ntfs-3g gives a new file by itself."""
STORED_BY_NTFS = bytes.fromhex(
    "01000490480000005800000000000000140000000200340002000000000314"
    "00ff011f0001010000000000051200000000031800ff011f00010200000000000520000000"
    "20020000"
    "01020000000000052000000020020000"
    "010100000000000512000000"
)
"""A folder's descriptor as ntfssecaudit printed it: protected, SYSTEM and Administrators, full."""


def test_the_bytes_are_those_that_ntfs_stored_on_a_real_volume() -> None:
    assert Access.ADMINISTRATORS_ONLY.descriptor(is_folder=True) == STORED_BY_NTFS


def test_first_boot_things_are_for_system_and_administrators_only() -> None:
    for is_folder in (True, False):
        entries = entries_of(Access.ADMINISTRATORS_ONLY.descriptor(is_folder=is_folder))
        assert {(e.sid, e.mask) for e in entries or []} == {(SYSTEM, FULL), (ADMINISTRATORS, FULL)}


def test_other_things_users_may_read_and_run() -> None:
    descriptor = Access.USERS_READ.descriptor(is_folder=False)
    entries = entries_of(descriptor)
    assert {e.sid: e.mask for e in entries or []}[USERS] == READ_AND_EXECUTE
    assert who_else_may_write(descriptor) == []
    assert describe(descriptor).endswith(f"{USERS} read and execute")


def test_what_ntfs_3g_makes_by_itself_is_found_out() -> None:
    assert who_else_may_write(EVERYONE_FULL) == ["S-1-1-0"]


def test_no_dacl_means_everybody() -> None:
    no_dacl = struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)
    assert entries_of(no_dacl) is None
    assert who_else_may_write(no_dacl) == ["S-1-1-0"]


@pytest.mark.parametrize(
    "right", [0x2, 0x4, 0x10, 0x40, 0x100, 0x10000, 0x40000, 0x80000, 0x10000000, 0x40000000]
)
def test_each_right_to_change_is_one(right: int) -> None:
    descriptor = bytearray(Access.USERS_READ.descriptor(is_folder=False))
    at = descriptor.index(struct.pack("<I", READ_AND_EXECUTE))
    struct.pack_into("<I", descriptor, at, READ_AND_EXECUTE | right)
    assert who_else_may_write(bytes(descriptor)) == [USERS]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_descriptor_or_a_bad_disk(data: bytes) -> None:
    try:
        describe(data)
        who_else_may_write(data)
    except BadDisk:
        return


@given(st.integers(0, 95), st.binary(min_size=1, max_size=8))
def test_a_damaged_descriptor_is_one_or_a_bad_disk(at: int, data: bytes) -> None:
    descriptor = bytearray(Access.USERS_READ.descriptor(is_folder=True))
    descriptor[at : at + len(data)] = data
    try:
        who_else_may_write(bytes(descriptor))
    except BadDisk:
        return
