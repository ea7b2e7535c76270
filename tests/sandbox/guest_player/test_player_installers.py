"""What the sample's installers leave when the player runs them, and the codes they end with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imageport.compose.volumes.file_version import read_version
from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.installers import Machine, program_of, run_installer
from imageport.sandbox.guest_player.registry import Hive
from imageport.sandbox.sample.hives import make_hive
from imageport.sandbox.sample.installer_package import FILE_NAMES, write_installer
from tests.sandbox.guest_player.plain_volume import PlainVolume

SET = "ControlSet001"
SYSTEM = """[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001]

[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services]

[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\LanmanWorkstation]
"DependOnService"=hex(7):42,00,6f,00,77,00,73,00,65,00,72,00,00,00,00,00
"""
SOFTWARE = """[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft]
"""
SILENT = {
    "pvs_target": '/S /v"/qn /norestart"',
    "vda": "/quiet /noreboot",
    "machine_identity": "/qn /norestart",
    "mcs_io": "/qn",
}


class Guest:
    """A volume and its two hives."""

    def __init__(self, root: Path) -> None:
        config = root / "Windows/System32/config"
        config.mkdir(parents=True)
        make_hive(config / "SYSTEM", "HKEY_LOCAL_MACHINE\\SYSTEM", [SYSTEM])
        make_hive(config / "SOFTWARE", "HKEY_LOCAL_MACHINE\\SOFTWARE", [SOFTWARE])
        self.root = root
        hives = Hive(config / "SYSTEM"), Hive(config / "SOFTWARE")
        self.machine = Machine(PlainVolume(root), *hives, SET)

    def run(self, path: Path, arguments: str) -> str:
        self.machine.volume.write(path.name, path.read_bytes())
        code = run_installer(self.machine, path.name, arguments)
        self.machine.system.flush()
        self.machine.software.flush()
        return code

    def service(self, name: str) -> registry.Key | None:
        return self.machine.system.key(f"{SET}\\Services\\{name}")


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "c")


@pytest.mark.parametrize(
    ("software", "service", "file"),
    [
        ("pvs_target", "BNDevice", "Program Files/Citrix/Provisioning Services/BNDevice.exe"),
        ("vda", "BrokerAgent", "Program Files/Citrix/Virtual Desktop Agent/BrokerAgent.exe"),
        ("machine_identity", "PvsVmAgent", "Program Files/Citrix/PvsVm/Service/PvsVmAgent.exe"),
        ("mcs_io", "CVhdMp", "Windows/System32/drivers/CVhdMp.sys"),
    ],
)
def test_an_installer_leaves_services_and_files_of_its_version(
    guest: Guest, tmp_path: Path, software: str, service: str, file: str
) -> None:
    installer = write_installer(tmp_path / "payload", software, "2407.0.0.10", exit_code=3010)
    assert installer.name == FILE_NAMES[software]
    assert guest.run(installer, SILENT[software]) == "3010"
    assert guest.service(service)
    found = read_version((guest.root / file).read_bytes())
    assert found is not None
    assert found.version == "2407.0.0.10"


def test_the_identity_agent_joins_what_the_workstation_service_waits_for(
    guest: Guest, tmp_path: Path
) -> None:
    installer = write_installer(tmp_path, "machine_identity", "7.41.0.1")
    before = registry.texts(guest.service("LanmanWorkstation"), "dependonservice")
    for _ in range(2):
        assert guest.run(installer, "/qn") == "0"
    after = registry.texts(guest.service("LanmanWorkstation"), "dependonservice")
    assert after == [*before, "PvsVmAgent"]


def test_an_installer_that_asks_somebody_never_ends(guest: Guest, tmp_path: Path) -> None:
    installer = write_installer(tmp_path, "pvs_target", "2407.0.0.10")
    assert guest.run(installer, "/norestart") == "timeout"
    assert guest.service("BNDevice") is None


def test_what_is_no_installer_is_not_run(guest: Guest, tmp_path: Path) -> None:
    program, package = tmp_path / "a.exe", tmp_path / "a.msi"
    program.write_bytes(b"MZ nothing behind it")
    package.write_bytes(write_installer(tmp_path, "mcs_io", "1.2.3.4").read_bytes()[:600])
    assert guest.run(program, "/s") == "193"
    assert guest.run(package, "/qn") == "1620"
    assert run_installer(guest.machine, "none.msi", "/qn") == "1619"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'"%~dp0install-a\\a.exe" /S /v"/qn"\r\n', ("install-a\\a.exe", '/S /v"/qn"')),
        (b'"%X%\\msiexec.exe" /i "%~dp0b\\b.msi" /qn P=5%%\r\n', ("b\\b.msi", "/qn P=5%")),
        (b"exit /b 0\r\n", None),
    ],
)
def test_a_command_file_tells_what_it_runs(line: bytes, found: Any) -> None:
    assert program_of(b"@echo off\r\n" + line) == found
