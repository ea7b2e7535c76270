"""The sample's hives, read by libhivex' own programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from imageport.sandbox.sample import hives, recipe
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.windows_registry import make_boot_store, make_windows_hives


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hives")
    make_windows_hives(made)
    make_boot_store(made / "BCD")
    return made


@pytest.mark.parametrize("control_set", ["ControlSet001", "ControlSet002"])
@pytest.mark.parametrize("driver", ["vmbus", "storvsc", "storflt", "stornvme", "storahci"])
def test_in_box_storage_drivers_are_held_back_in_both_control_sets(
    folder: Path, control_set: str, driver: str
):
    key = f"{control_set}\\Services\\{driver}"
    assert run(["hivexget", folder / "SYSTEM", key, "Start"]).strip() == "0"
    assert run(["hivexget", folder / "SYSTEM", f"{key}\\StartOverride", "0"]).strip() == "3"


@pytest.mark.parametrize(
    ("hive", "key", "value", "wanted"),
    [
        ("SYSTEM", "Select", "LastKnownGood", "2"),
        ("SYSTEM", "ControlSet002\\Services\\CFsDep2", "Start", "0"),
        ("SYSTEM", "ControlSet001\\Services\\vmci", "Start", "0"),
        ("SYSTEM", "ControlSet001\\Services\\BNDevice", "Start", "2"),
        ("SOFTWARE", "Citrix\\VirtualDesktopAgent", "ListOfDDCs", "ddc1.corp.example"),
        ("SOFTWARE", "Citrix\\ProvisioningServices", "TargetDeviceVersion", "2402.0.0.78"),
        ("SOFTWARE", "Microsoft\\Windows NT\\CurrentVersion", "CurrentBuild", "22631"),
        ("DRIVERS", "DriverDatabase\\DriverInfFiles\\oem3.inf", "Active", "vmxnet3.inf_amd64"),
    ],
)
def test_the_registry_holds_what_an_engine_looks_for(
    folder: Path, hive: str, key: str, value: str, wanted: str
):
    assert wanted in run(["hivexget", folder / hive, key, value])


def test_the_boot_store_names_disk_and_partition(folder: Path):
    entry = run(
        [
            "hivexget",
            folder / "BCD",
            "Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements\\23000003",
            "Element",
        ]
    ).strip()
    key = f"\\Objects\\{entry}\\Elements\\21000001"
    shown = run(["hivexregedit", "--export", folder / "BCD", key])
    element = bytes.fromhex(shown.rpartition(":")[2].strip().replace(",", ""))
    assert recipe.WINDOWS_GUID.bytes_le in element
    assert recipe.DISK_GUID.bytes_le in element


def test_two_builds_of_the_registry_are_the_same_bytes(folder: Path, tmp_path: Path):
    make_windows_hives(tmp_path)
    for name in ("SYSTEM", "SOFTWARE", "DRIVERS", "SAM", "SECURITY"):
        assert _without_times(tmp_path / name) == _without_times(folder / name)


def _without_times(hive: Path) -> str:
    return run(["hivexregedit", "--export", hive, "\\"])


def test_an_empty_hive_is_one_that_hivex_opens(tmp_path: Path):
    path = tmp_path / "EMPTY"
    path.write_bytes(hives.empty_hive("EMPTY"))
    assert run(["hivexregedit", "--export", path, "\\"]).count("[") == 1


def test_parents_that_no_line_named_are_made_once():
    text = hives.with_parents("HKLM\\X", "[HKLM\\X\\a\\b]\n[HKLM\\X\\a\\c]")
    assert [line for line in text.splitlines() if line] == [
        "[HKLM\\X\\a]",
        "[HKLM\\X\\a\\b]",
        "[HKLM\\X\\a\\c]",
    ]


def test_lists_of_strings_are_written_as_the_bytes_of_a_registry_text():
    assert hives.expand('"A"=multi:"x"') == '"A"=hex(7):78,00,00,00,00,00'
    assert hives.expand('"A"=expand:"%x%"') == '"A"=str(2):"%x%"'
