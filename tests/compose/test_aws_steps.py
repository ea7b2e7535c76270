"""What composing for AWS asks of Windows beside the drivers, and what is only told."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.steps.order import recommended_names
from imageport.sandbox.sample.hives import merge_text

SETS = ("ControlSet001", "ControlSet002")
SECRET = "Tr0ub4dor-and-3"
LOGON = "[\\Microsoft\\Windows NT\\CurrentVersion\\Winlogon]\n"
DOTNET = "\\Microsoft\\NET Framework Setup\\NDP\\v4\\Full"


def test_these_steps_of_this_group_are_recommended_for_aws() -> None:
    names = set(recommended_names("aws"))
    assert names >= {"ignore_boot_failures", "cloud_time_server", "hibernation_off"}
    assert not names & {"keep_connections_alive", "name_metadata_server", "crash_dumps"}


def test_the_clock_is_asked_for_every_fifteen_minutes(guest: Any) -> None:
    options = EngineOptions(recommended=("cloud_time_server",))
    changes = [c for c in guest.compose(options) if c.step == "cloud_time_server"]
    found = {(c.path.rpartition("\\")[2], c.name, c.after) for c in changes}
    assert found == {
        ("W32Time", "Start", "REG_DWORD 2"),
        ("Parameters", "Type", "REG_SZ NTP"),
        ("Parameters", "NtpServer", "REG_SZ 169.254.169.123,0x9"),
        ("NtpClient", "SpecialPollInterval", "REG_DWORD 900"),
    }
    assert len(changes) == len(found) * len(SETS)


def test_an_image_that_took_the_time_from_its_host_asks_by_itself_again(guest: Any) -> None:
    place = "ControlSet002\\Services\\W32Time\\TimeProviders\\NtpClient"
    merge_text(guest.hive("SYSTEM"), f'[\\{place}]\n"Enabled"=dword:00000000\n')
    changes = guest.compose(EngineOptions(recommended=("cloud_time_server",)))
    assert [(c.path, c.before, c.after) for c in changes if c.name == "Enabled"] == [
        (f"HKLM\\SYSTEM\\{place}", "REG_DWORD 0", "REG_DWORD 1")
    ]


def test_a_clock_that_is_read_as_local_time_fails_the_verdict(guest: Any) -> None:
    guest.compose()
    assert guest.judge()["clock"].passed
    key = "[\\ControlSet002\\Control\\TimeZoneInformation]\n"
    merge_text(guest.hive("SYSTEM"), f'{key}"RealTimeIsUniversal"=dword:00000000\n')
    item = guest.judge()["clock"]
    assert (item.passed, item.evidence) == (
        False,
        "ControlSet002: RealTimeIsUniversal is 0, needed 1",
    )


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ('"AutoAdminLogon"="0"\n', "nobody is signed in automatically"),
        ('"AutoAdminLogon"=-\n', "nobody is signed in automatically"),
        (
            (
                f'"AutoAdminLogon"="1"\n"DefaultUserName"="svc-{SECRET}"\n'
                f'"DefaultPassword"="{SECRET}"\n'
            ),
            "a user is signed in automatically; the password is in plain text in the registry",
        ),
        (
            '"AutoAdminLogon"="1"\n"DefaultPassword"=-\n',
            "a user is signed in automatically; the password is not in the registry's plain text",
        ),
    ],
)
@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_an_automatic_logon_is_told_and_never_who_or_with_what(
    guest: Any, text: str, evidence: str, cloud: str
) -> None:
    merge_text(guest.hive("SOFTWARE"), LOGON + text)
    items = guest.judge(options=EngineOptions(cloud=cloud))
    assert (items["automatic_logon"].passed, items["automatic_logon"].evidence) == (True, evidence)
    assert SECRET not in repr(items)


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        (f'[{DOTNET}]\n"Release"=dword:00082348\n', ".NET Framework 4, release 533320"),
        (f"[-{DOTNET}]\n", "not installed"),
    ],
)
def test_dotnet_is_told_on_aws_only(guest: Any, text: str, evidence: str) -> None:
    merge_text(guest.hive("SOFTWARE"), text)
    item = guest.judge()["dotnet"]
    assert (item.passed, item.evidence) == (True, evidence)
    assert "dotnet" not in guest.judge(options=EngineOptions(cloud="gcp"))


NEVER = (
    "Control\\Terminal Server", "RDP-Tcp", "TermService", "PagingFiles", "Tcpip6", "AWSNVMe",
    "FirewallPolicy", "KeyManagementService", "PersistentRoutes\\169", "SanPolicy",
    "TimeZoneKeyName", "RemoteRegistry", "Session Manager\\Environment",
)  # fmt: skip


def test_with_every_step_chosen_this_is_still_not_touched(guest: Any) -> None:
    options = EngineOptions(recommended=recommended_names("aws"))
    changes = guest.changes(options, apply=False)
    touched = [f"{change.path}\\{change.name}".lower() for change in changes]
    assert not [(path, place) for path in NEVER for place in touched if path.lower() in place]
