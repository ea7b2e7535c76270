"""What the sample has for Azure, and what its broken variants lack, read by hivexget."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.sandbox.sample.azure_faults import break_for_azure
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.recipe import Variant
from imageport.sandbox.sample.windows_registry import make_windows_hives

SETS = ("ControlSet001", "ControlSet002")
NETVSC = "VMBUS\\{f8615163-df3e-46c5-913f-f2d2f965ed0e}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_windows_hives(tmp_path)
    return tmp_path


def value(hive: Path, key: str, name: str) -> str:
    done = subprocess.run(["hivexget", hive, key, name], capture_output=True, check=False)
    return done.stdout.decode("latin-1").strip() if done.returncode == 0 else "(missing)"


@pytest.mark.parametrize("control_set", SETS)
@pytest.mark.parametrize(
    ("service", "start", "override", "severity"),
    [
        # As in hives of real Windows 10 machines that were not built on Hyper-V.
        ("vmbus", "0", "3", "1"),
        ("storvsc", "0", "3", "1"),
        ("storflt", "0", "3", "1"),
        ("stornvme", "0", "3", "3"),
        ("netvsc", "3", "(missing)", "1"),
        ("vpci", "3", "(missing)", "1"),
        ("intelide", "0", "(missing)", "3"),
        ("cdrom", "1", "(missing)", "1"),
    ],
)  # fmt: skip
def test_hyper_v_drivers_start_as_on_real_machines(
    folder: Path, control_set: str, service: str, start: str, override: str, severity: str
):
    key = f"{control_set}\\Services\\{service}"
    assert value(folder / "SYSTEM", key, "Start") == start
    assert value(folder / "SYSTEM", key, "ErrorControl") == severity
    assert value(folder / "SYSTEM", f"{key}\\StartOverride", "0") == override


@pytest.mark.parametrize(
    ("hive", "device", "inf"),
    [
        ("SYSTEM", "ACPI\\VMBus", "wvmbus.inf"),
        ("SYSTEM", "VMBUS\\{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}", "wstorvsc.inf"),
        ("SYSTEM", "VMBUS\\{44C4F61D-4444-4400-9D52-802E27EDE19F}", "wvpci.inf"),
        ("DRIVERS", NETVSC, "wnetvsc.inf"),
    ],
)
def test_the_database_leads_from_device_to_package_and_service(
    folder: Path, hive: str, device: str, inf: str
):
    shown = run(
        ["hivexregedit", "--export", folder / hive, f"\\DriverDatabase\\DeviceIds\\{device}"]
    )
    assert f'"{inf}"' in shown
    package = value(folder / hive, f"DriverDatabase\\DriverInfFiles\\{inf}", "Active")
    assert package.startswith(f"{inf}_amd64_")
    assert value(folder / hive, f"DriverDatabase\\DriverPackages\\{package}", "InfName") == inf


Lacks = Callable[[Path, str], str]

BROKEN: dict[Variant, tuple[Lacks, str]] = {
    Variant.WITHOUT_STORVSC: (
        lambda folder, name: value(folder / "SYSTEM", f"{name}\\Services\\storvsc", "Start"),
        "(missing)",
    ),
    Variant.WITHOUT_VPCI: (
        lambda folder, name: value(folder / "SYSTEM", f"{name}\\Services\\vpci", "Start"),
        "(missing)",
    ),
    Variant.WITHOUT_NETVSC: (
        lambda folder, _: value(
            folder / "DRIVERS", f"DriverDatabase\\DeviceIds\\{NETVSC}", "wnetvsc.inf"
        ),
        "(missing)",
    ),
    Variant.WITHOUT_STORVSC_ID: (
        lambda folder, _: value(
            folder / "SYSTEM",
            "DriverDatabase\\DeviceIds\\VMBUS\\{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}",
            "wstorvsc.inf",
        ),
        "(missing)",
    ),
    Variant.WITHOUT_HOST_TIME: (
        lambda folder, name: value(
            folder / "SYSTEM",
            f"{name}\\Services\\W32Time\\TimeProviders\\VMICTimeProvider",
            "Enabled",
        ),
        "(missing)",
    ),
    Variant.WITHOUT_DOTNET: (
        lambda folder, _: value(
            folder / "SOFTWARE", "Microsoft\\NET Framework Setup\\NDP\\v4\\Full", "Install"
        ),
        "(missing)",
    ),
    Variant.OFFLINE_SAN: (
        lambda folder, name: value(
            folder / "SYSTEM", f"{name}\\Services\\partmgr\\Parameters", "SanPolicy"
        ),
        "2",
    ),
    Variant.DVD_DISABLED: (
        lambda folder, name: value(folder / "SYSTEM", f"{name}\\Services\\cdrom", "Start"),
        "4",
    ),
}


@pytest.mark.parametrize("variant", BROKEN)
def test_a_broken_variant_lacks_its_thing_in_every_control_set(folder: Path, variant: Variant):
    lacks, found = BROKEN[variant]
    assert all(lacks(folder, name) != found for name in SETS)
    break_for_azure(folder, variant)
    assert [lacks(folder, name) for name in SETS] == [found, found]


def test_a_variant_that_has_nothing_to_do_with_azure_is_left_alone(folder: Path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    break_for_azure(folder, Variant.MBR)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
