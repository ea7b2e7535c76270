"""The footer that makes raw bytes a disk for Azure, and the sizes that go with it."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest

from imageport.clouds.azure.disk_sizes import (
    LARGEST_OS_DISK_BYTES,
    access_seconds,
    bytes_per_second,
    disk_bytes,
    upload_bytes,
)
from imageport.clouds.azure.footer import FOOTER_BYTES, vhd_footer
from imageport.errors import InputError
from imageport.formats._vhd_layout import Geometry, chs_geometry
from imageport.model import GIB, MIB
from imageport.sandbox.azure.disk_footer import check_footer

TIB = 1024 * GIB


@pytest.mark.parametrize("size", [20 * MIB, 21 * MIB, 504 * MIB, 33 * GIB, 127 * GIB, 4095 * GIB])
def test_the_sandboxs_own_reading_of_the_format_takes_the_footer(size: int):
    check_footer(vhd_footer(size, "disk"), size, "blob")


def test_a_disk_with_its_footer_is_a_fixed_vhd_of_exactly_its_size_to_qemu(tmp_path: Path):
    size = 20 * MIB
    path = tmp_path / "disk.vhd"
    path.write_bytes(b"\x55" * size + vhd_footer(size, "disk"))
    options = f"driver=vpc,file.filename={path}"
    command = ["qemu-img", "info", "--output=json", "--image-opts", options]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(answer.stdout)["virtual-size"] == size
    raw = tmp_path / "back.raw"
    convert = ["qemu-img", "convert", "--image-opts", options, "-O", "raw", str(raw)]
    subprocess.run(convert, check=True)
    assert raw.read_bytes() == b"\x55" * size


def test_qemus_own_fixed_vhd_has_the_same_size_type_and_checksum_rule(tmp_path: Path):
    size = 20 * MIB
    raw, vhd = tmp_path / "disk.raw", tmp_path / "disk.vhd"
    with raw.open("wb") as file:
        file.truncate(size)
    command = ["qemu-img", "convert", "-O", "vpc", "-o", "subformat=fixed,force_size=on"]
    subprocess.run([*command, str(raw), str(vhd)], check=True)
    theirs, ours = vhd.read_bytes()[-FOOTER_BYTES:], vhd_footer(size, "disk")
    for name, at in {
        "cookie": slice(0, 8),
        "features and version": slice(8, 16),
        "data offset": slice(16, 24),
        "current size": slice(48, 56),
        "disk type": slice(60, 64),
    }.items():
        assert ours[at] == theirs[at], name
    (checksum,) = struct.unpack(">I", theirs[64:68])
    assert ~(sum(theirs) - sum(theirs[64:68])) & 0xFFFF_FFFF == checksum


def test_the_same_upload_has_the_same_footer_and_another_has_another_id():
    assert vhd_footer(20 * MIB, "one") == vhd_footer(20 * MIB, "one")
    assert vhd_footer(20 * MIB, "one") != vhd_footer(20 * MIB, "two")


def test_every_bit_of_the_footer_is_under_its_checksum():
    footer = bytearray(vhd_footer(20 * MIB, "disk"))
    footer[200] ^= 1
    with pytest.raises(Exception, match="checksum"):
        check_footer(bytes(footer), 20 * MIB, "blob")


@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        # 40960 sectors: 17 a track, 2409 tracks, 4 heads.
        (20 * MIB, Geometry(602, 4, 17)),
        # 1032192 sectors are more than 16 heads of 17 sectors and of 31 sectors can count.
        (504 * MIB, Geometry(1024, 16, 63)),
        (127 * GIB, Geometry(65278, 16, 255)),
        # The largest that CHS can say: what is larger says the same.
        (TIB, Geometry(65535, 16, 255)),
        (4 * TIB, Geometry(65535, 16, 255)),
    ],
)
def test_the_geometry_follows_the_appendix_of_the_specification(size: int, geometry: Geometry):
    assert chs_geometry(size) == geometry


@pytest.mark.parametrize(
    ("image", "disk"),
    [
        (1, 20 * MIB),
        (20 * MIB, 20 * MIB),
        (20 * MIB + 512, 21 * MIB),
        (64 * GIB, 64 * GIB),
        (64 * GIB - 1, 64 * GIB),
        (LARGEST_OS_DISK_BYTES, LARGEST_OS_DISK_BYTES),
    ],
)
def test_a_disk_has_whole_mib_and_at_least_20(image: int, disk: int):
    assert disk_bytes(image) == disk
    assert upload_bytes(image) == disk + 512


def test_the_smallest_upload_is_the_one_that_azure_documents():
    assert upload_bytes(1) == 20_972_032


def test_an_image_larger_than_any_disk_that_boots_is_refused_with_both_sizes():
    with pytest.raises(InputError, match=f"found {4 * TIB} bytes, needed at most"):
        disk_bytes(4 * TIB)


@pytest.mark.parametrize(
    ("size", "mib"),
    [
        (20 * MIB, 60),
        (4 * TIB, 60),
        (4 * TIB + 1, 300),
        (8 * TIB, 300),
        (16 * TIB, 500),
        (32 * TIB, 500),
    ],
)
def test_an_upload_is_as_fast_as_a_standard_hdd_of_its_size(size: int, mib: int):
    assert bytes_per_second(size) == mib * MIB


@pytest.mark.parametrize(
    ("data", "seconds"),
    [(0, 3600.0), (30 * GIB, 3600.0), (240 * GIB, 8192.0), (4 * TIB, 86400.0)],
)
def test_access_is_granted_for_twice_the_time_needed_between_an_hour_and_a_day(
    data: int, seconds: float
):
    assert access_seconds(data, 127 * GIB) == pytest.approx(seconds, rel=0.01)
