"""Policies that would stop the first boot are told, harmless ones are not; secrets never are."""

from __future__ import annotations

import base64
from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions, EngineReport
from imageport.compose.inspection import inspect
from imageport.compose.report_page import report_markdown
from imageport.compose.steps.order import recommended_names
from imageport.sandbox.sample.hives import merge_text, with_parents

WINDOWS = "\\Policies\\Microsoft\\Windows"
SERVICES = "\\ControlSet001\\Services"


def policies(guest: Any) -> tuple[str, ...]:
    with ExitStack() as stack:
        return inspect(guest.registry(stack), guest.windows, guest.table).policies


def put(guest: Any, hive: str, text: str) -> None:
    """Merge a registry text, parents included."""
    merge_text(guest.hive(hive), with_parents("", text))


def test_a_plain_guest_has_no_policy_that_stops_first_boot(guest: Any) -> None:
    assert policies(guest) == ()


TOLD = {
    "signed scripts only": (
        f'[{WINDOWS}\\PowerShell]\n"ExecutionPolicy"="AllSigned"\n"EnableScripts"=dword:00000001',
        "PowerShell ExecutionPolicy=AllSigned: unsigned PowerShell scripts do not run",
    ),
    "restricted": (
        f'[{WINDOWS}\\PowerShell]\n"ExecutionPolicy"="Restricted"',
        "PowerShell ExecutionPolicy=Restricted: unsigned PowerShell scripts do not run",
    ),
    "no scripts": (
        f'[{WINDOWS}\\PowerShell]\n"EnableScripts"=dword:00000000',
        "PowerShell EnableScripts=0: no PowerShell script runs",
    ),
    "no batch files": (
        f'[{WINDOWS}\\System]\n"DisableCMD"=dword:00000001',
        "System DisableCMD=1: cmd.exe runs no script",
    ),
    "no command prompt": (
        f'[{WINDOWS}\\System]\n"DisableCMD"=dword:00000002',
        "System DisableCMD=2: cmd.exe takes no commands",
    ),
    "no unknown devices": (
        f'[{WINDOWS}\\DeviceInstall\\Restrictions]\n"DenyUnspecified"=dword:00000001',
        "Restrictions DenyUnspecified=1: devices that no other rule allows get no driver",
    ),
    "a time server": (
        '[\\Policies\\Microsoft\\W32Time\\Parameters]\n"NtpServer"="time.corp.example,0x8"',
        "NtpServer=time.corp.example,0x8: Windows asks this time server, not the cloud's",
    ),
    "a kind of time source": (
        '[\\Policies\\Microsoft\\W32Time\\Parameters]\n"Type"="NT5DS"',
        "Parameters Type=NT5DS: this decides where Windows takes the time from",
    ),
    "a power scheme": (
        '[\\Policies\\Microsoft\\Power\\PowerSettings]\n"ActivePowerScheme"="381b4222-f694"',
        "PowerSettings ActivePowerScheme=381b4222-f694: this power scheme is the active one",
    ),
    "fast startup": (
        f'[{WINDOWS}\\System]\n"HiberbootEnabled"=dword:00000001',
        "System HiberbootEnabled=1: fast startup stays on",
    ),
    "no devices of a class": (
        f'[{WINDOWS}\\DeviceInstall\\Restrictions]\n"DenyDeviceClasses"=dword:00000001',
        "Restrictions DenyDeviceClasses=1: devices by class get no driver",
    ),
    "no MSI": (
        f'[{WINDOWS}\\Installer]\n"DisableMSI"=dword:00000002',
        "Installer DisableMSI=2: no MSI is installed",
    ),
    "nothing runs unasked": (
        (
            f'[{WINDOWS}\\Safer\\CodeIdentifiers]\n"DefaultLevel"=dword:00000000\n'
            '"TransparentEnabled"=dword:00000001'
        ),
        "CodeIdentifiers DefaultLevel=0: programs without a rule of theirs do not run",
    ),
    "paths are forbidden": (
        (
            f'[{WINDOWS}\\Safer\\CodeIdentifiers]\n"DefaultLevel"=dword:00040000\n'
            f'"TransparentEnabled"=dword:00000001\n\n[{WINDOWS}\\Safer\\CodeIdentifiers\\0\\Paths\\a]'
        ),
        "CodeIdentifiers\\0 Paths=1: programs in some paths do not run",
    ),
    "AppLocker": (
        (
            f'[{WINDOWS}\\SrpV2\\Script]\n"EnforcementMode"=dword:00000001\n\n'
            f"[{WINDOWS}\\SrpV2\\Script\\rule]"
        ),
        "SrpV2\\Script EnforcementMode=1: AppLocker enforces 1 rules",
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_would_stop_first_boot_is_told_with_its_key(guest: Any, case: str) -> None:
    text, line = TOLD[case]
    put(guest, "SOFTWARE", text)
    (told,) = policies(guest)
    assert told.startswith("HKLM\\SOFTWARE\\Policies\\Microsoft\\")
    assert told.endswith(line)


@pytest.mark.parametrize(
    "text",
    [
        f'[{WINDOWS}\\PowerShell]\n"ExecutionPolicy"="RemoteSigned"\n"EnableScripts"=dword:00000001',
        f'[{WINDOWS}\\DeviceInstall\\Restrictions]\n"DenyUnspecified"=dword:00000000',
        f'[{WINDOWS}\\Installer]\n"DisableMSI"=dword:00000001',
        (
            f'[{WINDOWS}\\Safer\\CodeIdentifiers]\n"DefaultLevel"=dword:00000000\n'
            '"TransparentEnabled"=dword:00000000'
        ),
        f'[{WINDOWS}\\SrpV2\\Exe]\n"EnforcementMode"=dword:00000000\n\n[{WINDOWS}\\SrpV2\\Exe\\r]',
        f'[{WINDOWS}\\SrpV2\\Exe]\n"EnforcementMode"=dword:00000001',
    ],
)
def test_what_only_watches_or_allows_is_not_told(guest: Any, text: str) -> None:
    put(guest, "SOFTWARE", text)
    assert policies(guest) == ()


def test_application_control_is_told_by_its_files(guest: Any) -> None:
    place = guest.windows.root / "Windows/System32/CodeIntegrity"
    (place / "CiPolicies/Active").mkdir(parents=True)
    (place / "driversipolicy.p7b").write_bytes(b"in every Windows")
    assert policies(guest) == ()
    (place / "SiPolicy.p7b").write_bytes(b"policy")
    (place / "CiPolicies/Active/{5951A96A}.cip").write_bytes(b"policy")
    assert [line.partition(":")[0].rpartition("\\")[2] for line in policies(guest)] == [
        "SiPolicy.p7b",
        "{5951A96A}.cip",
    ]


def test_a_scanner_that_runs_is_told(guest: Any) -> None:
    key = f"{SERVICES}\\CSFalconService"
    merge_text(guest.hive("SYSTEM"), f'[{key}]\n"Start"=dword:00000002')
    assert policies(guest) == (
        (
            "HKLM\\SYSTEM\\ControlSet001\\Services\\CSFalconService Start=2: CrowdStrike Falcon "
            "may hold up programs and drivers"
        ),
    )
    merge_text(guest.hive("SYSTEM"), f'[{key}]\n"Start"=dword:00000004')
    assert policies(guest) == ()


SECRET = "Planted-Secret-4711"


def hex_of(text: str) -> str:
    return ",".join(f"{byte:02x}" for byte in text.encode())


def plant(guest: Any) -> None:
    """Put a secret wherever Windows or a tool keeps one."""
    wide = f"hex:{','.join(f'{byte:02x}' for byte in SECRET.encode('utf-16-le'))}"
    connections = "\\Microsoft\\Windows\\CurrentVersion\\Internet Settings\\Connections"
    put(
        guest,
        "SOFTWARE",
        "[\\Microsoft\\Windows NT\\CurrentVersion\\Winlogon]\n"
        f'"DefaultPassword"="{SECRET}"\n"AutoAdminLogon"="1"\n\n'
        f'[{connections}]\n"WinHttpSettings"=hex:{hex_of(f"http://user:{SECRET}@proxy:8080")}\n\n'
        f'[\\Policies\\Microsoft\\Windows\\Safer]\n"Password"="{SECRET}"\n\n'
        f'[\\Nutanix\\GuestTools]\n"ClientSecret"="{SECRET}"',
    )
    snmp = f"{SERVICES}\\SNMP\\Parameters"
    put(
        guest,
        "SYSTEM",
        f'[{snmp}\\ValidCommunities]\n"{SECRET}"=dword:00000004\n\n'
        f'[{snmp}\\TrapConfiguration\\{SECRET}]\n"1"="10.0.0.1"\n\n'
        f'[\\ControlSet001\\Control\\Lsa\\Secret]\n"Pattern"={wide}',
    )
    put(guest, "SECURITY", f"[\\Policy\\Secrets\\DefaultPassword\\CurrVal]\n@={wide}")


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_planted_secrets_are_in_no_report_and_on_no_page(guest: Any, cloud: str) -> None:
    plant(guest)
    with ExitStack() as stack:
        found = inspect(guest.registry(stack), guest.windows, guest.table)
    assert [line for line in found.network if line.startswith("proxy of services sha256:")]
    options = EngineOptions(
        cloud=cloud,
        recommended=tuple(n for n in recommended_names(cloud) if "own_step" not in n),
    )
    changes = guest.changes(options, apply=True)
    verdict = guest.judge(options=options)
    report = EngineReport(
        Action.COMPOSE,
        ok=True,
        inspection=found,
        steps=tuple(guest.notes),
        changes=tuple(changes),
        verdict=tuple(verdict.values()),
    )
    told = report.to_json() + report_markdown(report)
    assert "windows" in told.lower()
    for form in (
        SECRET,
        SECRET.encode().hex(),
        SECRET.encode("utf-16-le").hex(),
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
    ):
        assert form.lower() not in told.lower()
