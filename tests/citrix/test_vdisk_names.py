"""What PVS and Windows take as a vDisk's name, and what each file of a store is."""

from __future__ import annotations

import pytest

from imageport.citrix.names import (
    StoreFile,
    check_vdisk_name,
    disk_named,
    file_of,
    is_version_of,
    versioned,
)
from imageport.errors import InputError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gold", "gold"),
        ("gold.vhdx", "gold"),
        ("Gold.VHDX", "Gold"),
        ("Win11 24H2 - Finance", "Win11 24H2 - Finance"),
        ("win11.24H2", "win11.24H2"),
        ("a" * 52, "a" * 52),
        ("console", "console"),
    ],
)
def test_good_names_are_taken_without_suffix(text: str, name: str):
    assert check_vdisk_name(text) == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "at least one character"),
        (".vhdx", "at least one character"),
        ("a" * 53, "found 53 characters, needed at most 52"),
        ("gold-ü", "beyond ASCII"),
        ("a\tb", "control characters"),
        ("a/b", "/"),
        ("a\\b", "which Windows file names cannot hold"),
        ("C:gold", ":"),
        ('a"b', '"'),
        ("gold?", "?"),
        ("gold ", "space"),
        (" gold", "space"),
        ("gold.", "dot"),
        ("..", "dot"),
        ("con", "device"),
        ("LPT1.image", "device"),
        ("nul .x", "device"),
        ("gold.3", "version 3 of 'gold'"),
        ("gold.avhdx", "PVS gives its own files"),
        ("gold.lok", "PVS gives its own files"),
    ],
)
def test_bad_names_are_refused_with_the_reason(text: str, problem: str):
    with pytest.raises(InputError) as caught:
        check_vdisk_name(text)
    assert problem in caught.value.message


def test_everything_wrong_is_said_at_once():
    with pytest.raises(InputError) as caught:
        check_vdisk_name("ü" * 60 + "?")
    assert len(caught.value.fields["problems"]) == 3


@pytest.mark.parametrize(
    ("file_name", "expected"),
    [
        ("gold.vhdx", StoreFile("gold.vhdx", 0, "vhdx")),
        ("GOLD.VHDX", StoreFile("GOLD.VHDX", 0, "vhdx")),
        ("gold.12.avhdx", StoreFile("gold.12.avhdx", 12, "avhdx")),
        ("gold.3.vhdx", StoreFile("gold.3.vhdx", 3, "vhdx")),
        ("gold.3.lok", StoreFile("gold.3.lok", 3, "lok")),
        ("gold.pvp", StoreFile("gold.pvp", 0, "pvp")),
        ("gold.1.avhd", StoreFile("gold.1.avhd", 1, "avhd")),
        ("golden.vhdx", None),
        ("gold-2.vhdx", None),
        ("gold.x.vhdx", None),
        ("gold.1.2.vhdx", None),
        ("gold.xml", None),
        ("gold.vhdx.0123456789abcdef.part", None),
        ("gold", None),
    ],
)
def test_files_are_told_apart_by_vdisk_version_and_kind(file_name: str, expected: StoreFile | None):
    assert file_of("gold", file_name) == expected


def test_versions_are_named_as_pvs_names_them():
    assert versioned("gold", 0, "vhdx") == "gold.vhdx"
    assert versioned("gold", 4, "vhdx") == "gold.4.vhdx"
    assert is_version_of("Gold.4.vhdx", "gold.vhdx")
    assert is_version_of("gold.vhdx", "gold")
    assert not is_version_of("gold.4.lok", "gold")
    assert not is_version_of("golden.vhdx", "gold")
    assert is_version_of("gold.4.avhd", "gold.vhd")
    assert is_version_of("gold.vhdx", "Gold.2.avhdx")


@pytest.mark.parametrize(
    ("text", "vdisk", "version"),
    [
        ("gold", "gold", None),
        ("Win11.24H2", "Win11.24H2", None),
        ("gold.VHDX", "gold", 0),
        ("gold.vhd", "gold", 0),
        ("gold.2.avhdx", "gold", 2),
        ("gold.2.vhdx", "gold", 2),
        ("gold.12.avhd", "gold", 12),
        ("gold.2", "gold.2", None),
        ("gold.2.lok", "gold.2.lok", None),
        (".vhdx", ".vhdx", None),
        ("", "", None),
    ],
)
def test_a_name_means_a_vdisk_and_perhaps_one_file_of_it(
    text: str, vdisk: str, version: int | None
):
    found, file = disk_named(text)
    assert found == vdisk
    assert (file.version if file else None) == version
