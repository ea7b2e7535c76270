"""Version resources: read as they are written, and never more than None from broken bytes."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.compose.volumes.file_version import FileVersion, file_version, read_version
from imageport.sandbox.sample.portable_executable import minimal_pe

DRIVER = minimal_pe("bnistack6.sys", "2402.0.100.78", company="Citrix Systems, Inc.")


@pytest.mark.parametrize(
    ("name", "version", "company"),
    [
        ("a.sys", "2402.0.100.78", "Citrix Systems, Inc."),
        ("b.exe", "65535.1.0.65535", "Microsoft Corporation"),
        ("c.dll", "0.0.0.1", ""),
        ("d.dll", "1.2.3.4", "Grüße GmbH"),
    ],
)
def test_company_and_version_are_those_of_the_resource(
    name: str, version: str, company: str
) -> None:
    assert read_version(minimal_pe(name, version, company=company)) == FileVersion(company, version)


@pytest.mark.parametrize("data", [b"", b"MZ", b"MZ" + bytes(62), b"plain text", bytes(4096)])
def test_what_is_no_program_has_no_version(data: bytes) -> None:
    assert read_version(data) is None


def test_a_program_without_resources_has_no_version() -> None:
    at = 0x40 + 24 + 112 + 16
    assert read_version(DRIVER[:at] + bytes(8) + DRIVER[at + 8 :]) is None


def test_a_file_cut_off_has_no_version_or_the_whole_one() -> None:
    whole = read_version(DRIVER)
    found = {read_version(DRIVER[:length]) for length in range(len(DRIVER) + 1)}
    assert found == {None, whole}


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(DRIVER) - 1), st.integers(0, 255)), max_size=8))
def test_broken_bytes_never_raise(changes: list[tuple[int, int]]) -> None:
    data = bytearray(DRIVER)
    for at, value in changes:
        data[at] = value
    found = read_version(bytes(data))
    assert found is None or isinstance(found, FileVersion)


def test_a_directory_that_leads_into_itself_ends() -> None:
    data = bytearray(DRIVER)
    struct.pack_into("<I", data, 512 + 16 + 4, 0x80000000)  # the type leads to the root again
    assert read_version(bytes(data)) is None


def test_a_guests_file_tells_its_version_and_a_missing_one_tells_nothing(guest: Any) -> None:
    found = file_version(guest.windows, "Program Files/Citrix/Provisioning Services/BNDevice.exe")
    assert found == FileVersion("Citrix Systems, Inc.", "2402.0.0.78")
    assert file_version(guest.windows, "Windows/System32/drivers/none.sys") is None
