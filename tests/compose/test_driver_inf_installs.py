"""What an INF installs: models by version of Windows, services, files, values, and its bounds."""

from __future__ import annotations

import contextlib
import struct
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.compose.drivers.inf import DriverInf, DriverVersion, parse_inf
from imageport.compose.drivers.inf_installs import InfFile, InfInstall
from imageport.compose.drivers.inf_models import Decoration, WindowsVersion
from imageport.compose.drivers.inf_text import InfText, unquoted
from imageport.compose.drivers.inf_values import APPEND, NO_CLOBBER, InfValue
from imageport.compose.drivers.package_database import database_entries
from imageport.compose.drivers.package_layout import PackageLayout
from imageport.compose.hives.registry_value import Kind, Value
from imageport.errors import InputError
from imageport.sandbox.sample import driver_package

TEXTS = {
    path.stem: path.read_bytes()
    for path in sorted((Path(driver_package.__file__).parent / "drivers").glob("*.inf"))
}
WINDOWS_11 = WindowsVersion(10, 0, 22631, is_server=False)
HEAD = """[Version]
Signature="$Windows NT$"
Class=System
ClassGuid={4D36E97D-E325-11CE-BFC1-08002BE10318}
Provider=Maker
CatalogFile=x.cat
DriverVer=01/02/2024,1.2.3.4
[Manufacturer]
Maker=M,NTamd64
[M.NTamd64]
Device=Install,PCI\\VEN_1111&DEV_2222
"""


def sample(name: str) -> DriverInf:
    return parse_inf(TEXTS[name].replace(b"@VERSION@", b"1.2.3.4"))


def installed(*lines: str, head: str = HEAD) -> InfInstall:
    inf = parse_inf((head + "\n".join(lines)).encode())
    return inf.install_of(inf.models[0])


def layout(inf: DriverInf, system: WindowsVersion = WINDOWS_11) -> PackageLayout:
    files = ("x.inf", "x.cat", "x.sys", *inf.source_files)
    return PackageLayout(inf, "x.inf", files, system, "oem3.inf", "x.inf_amd64_0")


@pytest.mark.parametrize(
    ("text", "system", "fits"),
    [
        ("NTamd64", WINDOWS_11, True),
        ("ntamd64.10.0", WINDOWS_11, True),
        ("NTamd64.10.0...22631", WINDOWS_11, True),
        ("NTamd64.10.0...22632", WINDOWS_11, False),
        ("NTamd64.6.1", WINDOWS_11, True),
        ("NTamd64.11", WINDOWS_11, False),
        ("NTamd64.10.0.1", WINDOWS_11, True),
        ("NTamd64.10.0.3", WINDOWS_11, False),
        ("NTamd64.10.0.3", WindowsVersion(10, 0, 20348, is_server=True), True),
        ("NTamd64.10.0.1", WindowsVersion(10, 0, 20348, is_server=True), False),
        ("NTamd64.10.0..64", WINDOWS_11, False),
        ("NTamd64.10.0...0x5867", WINDOWS_11, True),
    ],
)
def test_a_decoration_fits_a_version_of_windows(
    text: str, system: WindowsVersion, *, fits: bool
) -> None:
    decoration = Decoration.read(text)
    assert decoration is not None
    assert decoration.fits(system) is fits


@pytest.mark.parametrize(
    "text", ["NTx86", "NTarm64.10.0", "NT", "NTamd64.x", "NTamd64.1.2.3.4.5.6"]
)
def test_what_is_for_others_or_unreadable_is_no_decoration(text: str) -> None:
    assert Decoration.read(text) is None


@pytest.mark.parametrize(
    ("build", "install"), [(14393, "Net.ndi"), (17763, "Net.ndi.New"), (22631, "Net.ndi.New")]
)
def test_the_newest_list_that_fits_is_taken(build: int, install: str) -> None:
    system = WindowsVersion(10, 0, build, is_server=False)
    models = sample("netkvm").models_for(system)
    assert {model.install for model in models} == {install}
    assert [model.position for model in models] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("manufacturer", "lists", "served"),
    [
        ("M,NTamd64.10.0,NTamd64.10.0...20000", "[M.NTamd64.10.0...20000]", [17763]),
        ("M,NTamd64.10.0,NTamd64.10.0...20000", "", [17763]),
        ("M,NTamd64.10.0,NTamd64.10.0...30000", "[M.NTamd64.10.0...30000]", [17763, 22631]),
        ("M,NTamd64.10.0\n%Q%=N,NTamd64.10.0...20000", "[N.NTamd64.10.0...20000]", [17763, 22631]),
    ],
)
def test_an_empty_list_leaves_its_systems_out(
    manufacturer: str, lists: str, served: list[int]
) -> None:
    text = HEAD.replace("M,NTamd64", manufacturer).replace("[M.NTamd64]", "[M.NTamd64.10.0]")
    assert manufacturer in text
    inf = parse_inf(f"{text}[Install]\n{lists}\n".encode())
    assert inf.hardware_ids == ("PCI\\VEN_1111&DEV_2222",)
    systems = [WindowsVersion(10, 0, build, is_server=False) for build in (17763, 22631)]
    assert [system.build for system in systems if inf.models_for(system)] == served


def test_windows_is_told_from_what_inspection_found() -> None:
    found = WindowsVersion.of("10.0.20348.2340", "Windows Server 2022 Datacenter")
    assert found == WindowsVersion(10, 0, 20348, is_server=True)
    for odd in ("", "\u00b2.x", f"10.0.{'1' * 5000}"):
        assert WindowsVersion.of(odd, "").build == 0


def test_a_service_is_read_with_all_that_windows_writes() -> None:
    (service,) = sample("vioscsi").services
    assert (service.kind, service.start, service.error_control) == (1, 0, 1)
    assert (service.group, service.binary, service.directory) == (
        "SCSI miniport",
        "vioscsi.sys",
        12,
    )
    assert service.is_function
    assert service.display_name == "%Scsi.Service%"
    assert service.values == (
        InfValue("Parameters\\PnpInterface", "5", Value.dword(1)),
        InfValue("Parameters", "BusType", Value.dword(10)),
    )
    path = Value.expandable("%SystemRoot%\\System32\\IoLogMsg.dll")
    assert service.event_log[0] == InfValue("", "EventMessageFile", path)


def test_filters_and_helpers_are_no_function_driver() -> None:
    install = installed(
        "[Install.Services]",
        "AddService=filter,0,F",
        "AddService=driver,0x2,D",
        "AddService=,2",
        "[D]",
        "ServiceBinary=%12%\\driver.sys",
        "Dependencies=one,+group",
    )
    assert [(s.name, s.is_function) for s in install.services] == [
        ("filter", False),
        ("driver", True),
    ]
    assert install.function is not None
    assert install.function.dependencies == ("one", "+group")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("HKR,,a,,text", InfValue("", "a", Value.text("text"))),
        ('HKR,k,a,0,"a, b"', InfValue("k", "a", Value.text("a, b"))),
        ("HKR,k\\\\l,a,0x20000,%%x%%", InfValue("k\\l", "a", Value.expandable("%x%"))),
        ("HKR,,a,0x10001,0xff", InfValue("", "a", Value.dword(255))),
        ("HKR,,a,0x10001", InfValue("", "a", Value.dword(0))),
        ("HKR,,a,65537,7", InfValue("", "a", Value.dword(7))),
        ("HKR,,a,1,01,ff,0x2", InfValue("", "a", Value(Kind.BINARY, b"\x01\xff\x02"))),
        ("HKR,,a,0x10000,x,y", InfValue("", "a", Value.texts(["x", "y"]))),
        ("HKR,,a,0x20001", InfValue("", "a", Value(Kind.NONE, b""))),
        ("HKR,,a,0xB0001,9", InfValue("", "a", Value(Kind.QWORD, struct.pack("<Q", 9)))),
        ("HKR,,a,0x10003,1", InfValue("", "a", Value.dword(1), NO_CLOBBER)),
        ("HKR,,a,0x10008,x", InfValue("", "a", Value.texts(["x"]), APPEND)),
        ("HKR,key,,0x10", InfValue("key", "", None)),
    ],
)
def test_a_value_is_read_by_its_flags(line: str, value: InfValue) -> None:
    install = installed("[Install]", "AddReg=R", "[R]", line)
    assert install.driver_values == (value,)
    assert install.not_followed == ()


@pytest.mark.parametrize(
    "line",
    [
        "HKLM,Software\\X,a,,b",
        "HKR,,a,0x4",
        "HKR,,a,0x10001,-1",
        "HKR,,a,0x10001,0x100000000",
        "HKR,,a,0x10001,hello",
        "HKR,,a,1,xyz",
        "HKR,,a,0x70000,x",
        "HKR,,a,flags,x",
        f"HKR,{'k' * 256},a,,b",
        "nonsense",
    ],
)
def test_a_value_that_is_elsewhere_or_unreadable_is_left_and_said(line: str) -> None:
    install = installed("[Install]", "AddReg=R", "[R]", line)
    assert install.driver_values == ()
    assert install.not_followed[0].startswith("[R] ")


def test_directives_that_are_not_followed_are_said() -> None:
    install = installed(
        "[Install]",
        "Include=pci.inf",
        "Needs=PciStuff",
        "DelReg=D",
        "CopyFiles=Nowhere",
        "[Install.CoInstallers]",
        "AddReg=C",
        "[Nowhere]",
        "a.sys",
    )
    assert install.included == ("pci.inf",)
    assert install.not_followed == (
        "[Install] Include=pci.inf",
        "[Install] Needs=PciStuff",
        "[Install] DelReg=D",
        "[Install.CoInstallers] co-installers",
        "[Install] CopyFiles=Nowhere",
    )


def test_files_go_where_their_lists_say() -> None:
    install = installed(
        "[Install]",
        "CopyFiles=A,B,@d.sys",
        "[A]",
        "a.sys,source.sys",
        "[B]",
        "b.dll,,,2",
        "[DestinationDirs]",
        "DefaultDestDir=12",
        "B=11,sub\\folder",
    )
    assert install.files == (
        InfFile(12, "", "a.sys", "source.sys"),
        InfFile(11, "sub\\folder", "b.dll", "b.dll"),
        InfFile(12, "", "d.sys", "d.sys"),
    )


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("12", "Windows/System32/drivers/x.sys"),
        ("11", "Windows/System32/x.sys"),
        ("10,sub\\deep", "Windows/sub/deep/x.sys"),
        ("13", ""),
        ("11,..\\..", ""),
        ("16425", ""),
        ("12,a:b", ""),
    ],
)
def test_files_are_copied_into_folders_of_windows_only(place: str, path: str) -> None:
    text = f"[Install]\nCopyFiles=F\n[F]\nx.sys\n[DestinationDirs]\nF={place}\n"
    found = layout(parse_inf((HEAD + text).encode()))
    assert found.copies() == ({path: "x.sys"} if path else {})
    assert bool(found.not_followed()) is (not path and place != "13")


@pytest.mark.parametrize(
    ("binary", "kind", "image"),
    [
        ("%12%\\x.sys", 1, "System32\\drivers\\x.sys"),
        (
            "%13%\\x.sys",
            1,
            "\\SystemRoot\\System32\\DriverStore\\FileRepository\\x.inf_amd64_0\\x.sys",
        ),
        ("%11%\\x.exe", 16, "%SystemRoot%\\System32\\x.exe"),
        ("%11%\\x.sys", 2, "\\SystemRoot\\System32\\x.sys"),
    ],
)
def test_a_services_image_is_written_as_windows_writes_it(
    binary: str, kind: int, image: str
) -> None:
    text = (
        f"[Install.Services]\nAddService=x,2,S\n[S]\nServiceBinary={binary}\nServiceType={kind}\n"
    )
    found = layout(parse_inf((HEAD + text).encode()))
    assert found.image_path(found.services[0]) == image


def test_the_platforms_own_section_comes_first() -> None:
    install = installed("[Install]", "FeatureScore=1", "[Install.NTAMD64]", "FeatureScore=2")
    assert (install.name, install.feature_score) == ("Install.NTAMD64", 2)


def test_filters_of_a_device_are_the_configurations_own(tmp_path: Path) -> None:
    del tmp_path
    found = layout(sample("gvnic"))
    entries = {
        (e.key.rpartition("\\")[2], e.name): e.value for e in database_entries(found, "", b"")
    }
    assert entries["Gvnic_Device.NTamd64", "UpperFilters"] == Value.texts(["samplefilter"])
    assert entries["VEN_1AE0&DEV_0042&SUBSYS_00581AE0", "oem3.inf"] == Value(3, b"\x01\xfe\0\0")


def test_a_catalogue_of_microsofts_laboratory_is_named() -> None:
    name = "Microsoft Windows Hardware Compatibility Publisher"
    found = layout(sample("ena"))
    for catalogue, score in ((name.encode(), 0x0D000005), (b"", 0x0F000000)):
        values = {e.name: e.value for e in database_entries(found, "", catalogue)}
        assert values["SignerScore"] == Value.dword(score)
        assert ("SignerName" in values) is bool(catalogue)


def test_values_that_append_become_one_with_the_type_that_says_so() -> None:
    text = "[Install.HW]\nAddReg=R\n[R]\nHKR,,a,0x10008,x\nHKR,,a,0x10008,y\n"
    found = layout(parse_inf((HEAD + text).encode()))
    (value,) = [e.value for e in database_entries(found, "", b"") if e.name == "a"]
    assert value == Value(0x40007, Value.texts(["x", "y"]).data)


@pytest.mark.parametrize(
    ("text", "numbers", "day"),
    [
        ("03/14/2025,2.9.0.4", (2, 9, 0, 4), "2025-03-14"),
        ("06-21-2006, 10.0", (10, 0, 0, 0), "2006-06-21"),
        ("01/02/2024", (0, 0, 0, 0), "2024-01-02"),
    ],
)
def test_a_drivers_version_is_a_date_and_four_numbers(
    text: str, numbers: tuple[int, ...], day: str
) -> None:
    version = parse_inf(HEAD.replace("01/02/2024,1.2.3.4", text).encode()).version
    assert version.numbers == numbers
    assert str(version).endswith(f"of {day}")


def test_a_version_of_a_real_package_is_the_one_in_its_database() -> None:
    # VMware's pvscsi 1.3.15.0 in a public hive: FILETIME 0x01D548C53A3B0000.
    version = parse_inf(HEAD.replace("01/02/2024,1.2.3.4", "08/02/2019,1.3.15.0").encode()).version
    assert version == DriverVersion(0x01D548C53A3B0000, (1, 3, 15, 0))
    assert datetime.fromtimestamp(version.date / 1e7 - 11_644_473_600, UTC).day == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("01/02/2024,1.2.3.4", "13/02/2024,1.2.3.4", "needed MM/DD/YYYY,w.x.y.z"),
        ("01/02/2024,1.2.3.4", "01/02/1500,1.2.3.4", "needed MM/DD/YYYY,w.x.y.z"),
        ("01/02/2024,1.2.3.4", "01/02/2024,1.2.3.70000", "needed MM/DD/YYYY,w.x.y.z"),
        ("01/02/2024,1.2.3.4", "01/02/2024,1.2.3.4.5", "needed MM/DD/YYYY,w.x.y.z"),
        ("{4D36E97D-E325", "{4D36E97D-", "needed a GUID"),
        ("Install,PCI", "a\\b,PCI", "needed a plain name"),
        ("PCI\\VEN_1111&DEV_2222", "a\\b\\c\\d", "found device id"),
        ("PCI\\VEN_1111&DEV_2222", "x" * 201, "found device id"),
    ],
)
def test_what_could_be_no_key_or_version_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_inf(HEAD.replace(old, new).encode())


def test_a_services_name_that_could_be_no_key_is_refused() -> None:
    with pytest.raises(InputError, match="found service"):
        installed("[Install.Services]", "AddService=a\\b,2,S")


@pytest.mark.parametrize(
    ("written", "bare"),
    [('""', ""), ('"a ""b"""', 'a "b"'), (' "x" ', "x"), ('a"b"', 'a"b'), ("", ""), ('"', "")],
)
def test_quotes_are_taken_off(written: str, bare: str) -> None:
    assert unquoted(written) == bare


def test_an_empty_folder_of_a_disk_is_no_folder() -> None:
    assert sample("vioscsi").source_files == ("vioscsi.sys",)
    assert sample("gvnic").source_files == ("gvnic.sys", "x64/lib.dll")


@pytest.mark.parametrize(
    "data",
    [
        HEAD.encode() + b"[Install]\n" + b"x\\\n" * 90_000,
        HEAD.encode()
        + b"[Strings]\na="
        + b"b" * 4000
        + b"\n[Install]\nAddReg=R\n[R]\n"
        + (b"HKR,,x,,%a%%a%%a%\n" * 60_000),
        HEAD.encode() + b"[Install]\nAddReg=" + b"R," * 50_000 + b"\n[R]\nHKR,,a,,b\n",
        HEAD.encode() + b'[Install]\n"' + b";" * 3_000_000,
    ],
    ids=["continued lines", "long strings", "many lists", "a quoted comment"],
)
def test_a_hostile_inf_costs_seconds_at_most(data: bytes) -> None:
    began = time.monotonic()
    with contextlib.suppress(InputError):
        parse_inf(data)
    assert time.monotonic() - began < 30


def test_a_string_longer_than_windows_takes_is_refused() -> None:
    with pytest.raises(InputError, match="found a string of 5000 characters"):
        InfText(HEAD.encode() + b"[Strings]\na=" + b"b" * 5000)


@settings(max_examples=150, deadline=None)  # time is tested above, on a busy machine too
@given(st.sampled_from(sorted(TEXTS)), st.data())
def test_a_damaged_inf_of_a_package_is_an_inf_or_an_input_error(
    name: str, data: st.DataObject
) -> None:
    text = bytearray(TEXTS[name].replace(b"@VERSION@", b"1.2.3.4"))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
        if not text:
            return
    with contextlib.suppress(InputError):
        inf = parse_inf(bytes(text))
        for entry in database_entries(layout(inf), "C:\\x", b"") if inf.class_guid else ():
            assert "\\\\" not in entry.key
            assert not entry.key.endswith("\\")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text("abcdef\\ ,;\"%='", max_size=12),
            st.integers(0, 2**33),
            st.text('0123456789abcdefx,"% ', max_size=20),
        ),
        max_size=20,
    )
)
def test_any_values_are_read_or_said_to_be_left(lines: list[tuple[str, int, str]]) -> None:
    written = [
        f'HKR,"{key.replace(chr(34), "")}",n,{flags:#x},{rest}' for key, flags, rest in lines
    ]
    install = installed("[Install]", "AddReg=R", "[R]", *written)
    for item in install.driver_values:
        assert not item.key.startswith("\\")
        assert "\\\\" not in item.key
    assert len(install.driver_values) + len(install.not_followed) <= len(lines)
