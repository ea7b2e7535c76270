"""INF files and driver packages of the operator's folder: read, bounded, refused with a reason."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.compose.drivers.driver_packages import find_packages
from imageport.compose.drivers.inf import MAX_INF_BYTES, id_matches, parse_inf
from imageport.compose.payload_files import inside
from imageport.errors import InputError
from imageport.sandbox.sample.driver_package import write_ena_package

SMALLEST = """[Version]
Signature="$Windows NT$"
Class=Net
ClassGuid={4D36E972-E325-11CE-BFC1-08002BE10318}
Provider=%P%
CatalogFile=x.cat
DriverVer=01/02/2024, 1.2.3.4
[Manufacturer]
%P%=M,NTamd64
[M.NTamd64]
"A device"=Install, PCI\\VEN_1111&DEV_2222 ; comment
[Install.NT.Services]
AddService=xsvc,2,Service
[Service]
ServiceBinary=%13%\\x.sys
[SourceDisksNames]
1="Disk",,,sub
[SourceDisksFiles]
x.sys=1
[Strings]
P="Maker; Inc."
"""


@pytest.fixture
def ena(tmp_path: Path) -> Path:
    write_ena_package(tmp_path / "ena")
    return tmp_path


def test_an_inf_tells_devices_service_files_and_version() -> None:
    inf = parse_inf(SMALLEST.encode())
    assert inf.provider == "Maker; Inc."
    assert inf.class_guid == "{4d36e972-e325-11ce-bfc1-08002be10318}"
    assert inf.catalog == "x.cat"
    assert inf.driver_version == "01/02/2024,1.2.3.4"
    assert inf.hardware_ids == ("PCI\\VEN_1111&DEV_2222",)
    assert [(s.name, s.binary) for s in inf.services] == [("xsvc", "x.sys")]
    assert inf.source_files == ("sub/x.sys",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_all_encodings_of_vendors_read_alike(encoding: str) -> None:
    text = SMALLEST.replace("Maker; Inc.", "Herstellér").replace("\n", "\r\n")
    assert parse_inf(text.encode(encoding)).provider == "Herstellér"


def test_big_endian_utf16_is_read_by_its_mark() -> None:
    data = b"\xfe\xff" + SMALLEST.encode("utf-16-be")
    assert parse_inf(data).catalog == "x.cat"


def test_models_of_other_processors_are_not_taken() -> None:
    text = SMALLEST.replace("M,NTamd64", "M,NTx86,NTarm64").replace("M.NTamd64", "M.NTx86")
    with pytest.raises(InputError, match="no device for 64-bit Windows"):
        parse_inf(text.encode())


def test_a_continued_line_is_one_line() -> None:
    text = SMALLEST.replace("Install, PCI", "Install, \\\nPCI")
    assert parse_inf(text.encode()).hardware_ids == ("PCI\\VEN_1111&DEV_2222",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no signature"),
        (b"[Version]\nSignature=other\n", "no signature"),
        (b";" * (MAX_INF_BYTES + 1), "bytes, needed"),
        (b"\n" * 100_001, "lines, needed"),
    ],
)
def test_what_is_no_inf_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_inf(data)


@given(st.one_of(st.binary(max_size=2000), st.text(max_size=2000).map(str.encode)))
def test_any_bytes_are_an_inf_or_an_input_error(data: bytes) -> None:
    with contextlib.suppress(InputError):
        parse_inf(data)


@settings(max_examples=200, deadline=None)  # time is no property here: machines are shared
@given(st.data())
def test_a_damaged_inf_is_an_inf_or_an_input_error(data: st.DataObject) -> None:
    text = bytearray(SMALLEST.encode())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        parse_inf(bytes(text))


@pytest.mark.parametrize(
    ("offered", "wanted", "matches"),
    [
        ("PCI\\VEN_1D0F&DEV_EC20", "pci\\ven_1d0f&dev_ec20", True),
        ("PCI\\VEN_1D0F&DEV_EC20&SUBSYS_00000000", "PCI\\VEN_1D0F&DEV_EC20", True),
        ("PCI\\VEN_1D0F&DEV_EC20", "PCI\\VEN_1D0F&DEV_EC20&REV_00", True),
        ("PCI\\VEN_1D0F&DEV_EC2", "PCI\\VEN_1D0F&DEV_EC20", False),
        ("PCI\\VEN_1D0F&DEV_EC21", "PCI\\VEN_1D0F&DEV_EC20", False),
    ],
)
def test_ids_match_whole_parts_only(offered: str, wanted: str, *, matches: bool) -> None:
    assert id_matches(offered, wanted) is matches


def test_a_whole_package_is_found(ena: Path) -> None:
    packages, refusals = find_packages(ena, ("ena",), "aws")
    assert not refusals
    assert [package.name for package in packages] == ["ena"]
    assert packages[0].files == ("ena.cat", "ena.inf", "ena.sys")
    assert packages[0].inf.serves("PCI\\VEN_1D0F&DEV_EC20")


def test_without_names_the_whole_payload_is_searched(ena: Path) -> None:
    packages, _ = find_packages(ena, (), "aws")
    assert [package.name for package in packages] == ["ena"]


def test_what_lies_below_another_clouds_name_is_that_clouds(ena: Path) -> None:
    (ena / "aws").mkdir()
    (ena / "ena").rename(ena / "aws" / "ena")
    assert [item.name for item in find_packages(ena, (), "aws")[0]] == ["ena"]
    assert find_packages(ena, (), "azure") == ([], [])
    assert find_packages(ena, ("aws/ena",), "azure") == ([], [])
    assert [item.name for item in find_packages(ena, ("aws/ena",), "aws")[0]] == ["ena"]


@pytest.mark.parametrize("lost", ["ena.sys", "ena.cat"])
def test_an_incomplete_package_is_refused_by_the_missing_file(ena: Path, lost: str) -> None:
    (ena / "ena" / lost).unlink()
    packages, refusals = find_packages(ena, ("ena",), "aws")
    assert not packages
    assert [item.code for item in refusals] == ["driver_incomplete"]
    assert lost in refusals[0].reason


def test_every_package_that_is_wrong_is_named_and_the_others_are_kept(ena: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(ena / "ena", ena / name)
        (ena / name / "ena.inf").rename(ena / name / f"{name}.inf")
        (ena / name / "ena.sys").unlink()
    packages, refusals = find_packages(ena, (), "aws")
    assert [package.name for package in packages] == ["ena"]
    assert [item.reason.split("'")[1] for item in refusals] == ["a.inf", "b.inf"]


def test_two_packages_of_one_name_are_refused_and_one_named_twice_is_not(ena: Path) -> None:
    assert find_packages(ena, ("ena", "."), "aws")[1] == []
    shutil.copytree(ena / "ena", ena / "older")
    _, refusals = find_packages(ena, (), "aws")
    assert [item.code for item in refusals] == ["driver_incomplete"]
    assert "found 'ena.inf' in folders 'ena' and 'older'" in refusals[0].reason
    assert find_packages(ena, ("older",), "aws")[1] == []


def test_an_unsigned_package_is_refused(ena: Path) -> None:
    inf = ena / "ena/ena.inf"
    inf.write_bytes(inf.read_bytes().replace(b"CatalogFile = ena.cat", b""))
    _, refusals = find_packages(ena, (), "aws")
    assert "a catalogue" in refusals[0].reason


def test_files_are_found_whatever_their_case(ena: Path) -> None:
    (ena / "ena/ena.sys").rename(ena / "ena/ENA.SYS")
    packages, refusals = find_packages(ena, (), "aws")
    assert not refusals
    assert "ENA.SYS" in packages[0].files


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        (b"%12%\\ena.sys", b"%12%\\serial.sys", ""),  # Windows' own, copied by no list
        (b"%12%\\ena.sys", b"%13%\\other.sys", "other.sys"),
        (b"ena.sys,,,2", b"ena.sys,other.sys,,2", "other.sys"),
    ],
)
def test_a_service_needs_its_file_unless_it_is_windows_own(
    ena: Path, old: bytes, new: bytes, missing: str
) -> None:
    inf = ena / "ena/ena.inf"
    assert old in inf.read_bytes()
    inf.write_bytes(inf.read_bytes().replace(old, new))
    packages, refusals = find_packages(ena, (), "aws")
    assert bool(packages) is not bool(missing)
    assert [item.reason.partition("missing ")[2] for item in refusals] == (
        [f"{missing}."] if missing else []
    )


def test_names_that_a_shell_would_read_are_refused(ena: Path) -> None:
    (ena / "ena/ena.inf").rename(ena / "ena/ena&calc.inf")
    _, refusals = find_packages(ena, (), "aws")
    assert "is not plain" in refusals[0].reason


def test_a_named_folder_without_payload_is_refused() -> None:
    _, refusals = find_packages(None, ("ena",), "aws")
    assert [item.code for item in refusals] == ["payload_missing"]


@pytest.mark.parametrize("name", ["../ena", "/etc", "ena/../../x", "..\\ena"])
def test_paths_out_of_the_payload_are_refused(ena: Path, name: str) -> None:
    with pytest.raises(InputError):
        inside(ena, name)


def test_a_link_out_of_the_payload_is_refused(ena: Path, tmp_path: Path) -> None:
    (ena / "out").symlink_to(tmp_path.parent)
    with pytest.raises(InputError, match="a link that leads out"):
        inside(ena, "out")
