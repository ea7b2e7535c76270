"""What composing for Google Cloud changes beside the rest, and what it leaves alone."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.steps.order import option_refusals, recommended_names, step_refusals
from imageport.compose.steps.windows.name_metadata_server import HOSTS
from imageport.sandbox.sample.hives import merge_text

SETS = ("ControlSet001", "ControlSet002")
RECOMMENDED = {
    "ignore_boot_failures",
    "cloud_time_server",
    "name_metadata_server",
    "keep_connections_alive",
    "query_disk_alignment",
    "hibernation_off",
}
VIOSCSI = (
    '[\\{set}\\Services\\vioscsi]\n"Start"=dword:00000000\n\n'
    "[\\{set}\\Services\\vioscsi\\Parameters]\n"
)
OFFLINE = '[\\{set}\\Services\\partmgr\\Parameters]\n"SanPolicy"=dword:00000002\n'


def merge(guest: Any, text: str) -> None:
    merge_text(guest.hive("SYSTEM"), "\n".join(text.replace("{set}", name) for name in SETS))


def test_these_steps_of_this_group_are_recommended_for_google_cloud() -> None:
    names = set(recommended_names("gcp"))
    assert names >= RECOMMENDED
    assert not names & {"no_winhttp_proxy", "crash_dumps", "high_performance", "azure_vm_agent"}


@pytest.mark.parametrize(
    "name", ["name_metadata_server", "keep_connections_alive", "query_disk_alignment"]
)
@pytest.mark.parametrize("cloud", ["gcp", "aws", "azure"])
def test_a_step_of_google_cloud_is_one_of_no_other(name: str, cloud: str) -> None:
    found = option_refusals(EngineOptions(cloud=cloud, recommended=(name,)))
    assert [item.code for item in found] == ([] if cloud == "gcp" else ["unknown_step"])


Expected = tuple[tuple[str, str, str, str], ...]
"""(key below the control set, value, before, after), the same in every control set."""

BEHAVIOUR: dict[str, tuple[str, Expected]] = {
    "bring_disks_online": (
        OFFLINE,
        (("Services\\partmgr\\Parameters", "SanPolicy", "REG_DWORD 2", "REG_DWORD 1"),),
    ),
    "keep_connections_alive": (
        "",
        (("Services\\Tcpip\\Parameters", "KeepAliveTime", "", "REG_DWORD 300000"),),
    ),
    "query_disk_alignment": (
        VIOSCSI,
        (
            (
                "Services\\vioscsi\\Parameters\\Device",
                "EnableQueryAccessAlignment",
                "",
                "REG_DWORD 1",
            ),
        ),
    ),
    "cloud_time_server": (
        "",
        (
            ("Services\\W32Time", "Start", "REG_DWORD 3", "REG_DWORD 2"),
            ("Services\\W32Time\\Parameters", "Type", "REG_SZ NT5DS", "REG_SZ NTP"),
            (
                "Services\\W32Time\\Parameters",
                "NtpServer",
                "REG_SZ time.windows.com,0x9",
                "REG_SZ metadata.google.internal,0x9",
            ),
            (
                "Services\\W32Time\\TimeProviders\\NtpClient",
                "SpecialPollInterval",
                "",
                "REG_DWORD 900",
            ),
        ),
    ),
}


@pytest.mark.parametrize("step", BEHAVIOUR)
def test_a_step_makes_these_changes_once_in_every_control_set(guest: Any, step: str) -> None:
    text, expected = BEHAVIOUR[step]
    merge(guest, text) if text else None
    chosen = tuple({step} & RECOMMENDED)
    options = EngineOptions(cloud="gcp", recommended=chosen)
    changes = guest.compose(options)
    found = sorted((c.path, c.name, c.before, c.after) for c in changes if c.step == step)
    assert found == sorted(
        (f"HKLM\\SYSTEM\\{control_set}\\{key}", name, before, after)
        for control_set in SETS
        for key, name, before, after in expected
    )
    assert not [c for c in guest.compose(options) if c.step == step]


def test_a_driver_that_is_not_there_gets_no_parameter(guest: Any) -> None:
    guest.compose(EngineOptions(cloud="gcp", recommended=("query_disk_alignment",)))
    note = next(note for note in guest.notes if note.name == "query_disk_alignment")
    assert (note.chosen, note.reason) == (False, "nothing to do here")


LINE = b"169.254.169.254 metadata.google.internal\r\n"
HOSTS_FILES: dict[str, tuple[bytes | None, bytes]] = {
    "missing": (None, LINE),
    "empty": (b"", LINE),
    "not ended": (b"127.0.0.1 localhost", b"127.0.0.1 localhost\r\n" + LINE),
    "ended": (b"127.0.0.1 localhost\r\n", b"127.0.0.1 localhost\r\n" + LINE),
    "commented out": (b"# " + LINE, b"# " + LINE + LINE),
    "there": (b"\xef\xbb\xbf" + LINE, b"\xef\xbb\xbf" + LINE),
    "there among others": (
        b"169.254.169.254\tmetadata METADATA.google.internal # x\n",
        b"169.254.169.254\tmetadata METADATA.google.internal # x\n",
    ),
}


@pytest.mark.parametrize("name", HOSTS_FILES)
def test_the_metadata_server_is_named_once(guest: Any, name: str) -> None:
    before, after = HOSTS_FILES[name]
    place = guest.windows.root / HOSTS
    if before is None:
        place.unlink()
    else:
        place.write_bytes(before)
    options = EngineOptions(cloud="gcp", recommended=("name_metadata_server",))
    changes = [c for c in guest.compose(options) if c.step == "name_metadata_server"]
    assert place.read_bytes() == after
    assert bool(changes) is (before != after)
    assert not [c for c in guest.compose(options) if c.step == "name_metadata_server"]


def test_a_hosts_file_is_made_with_its_folder(guest: Any) -> None:
    shutil.rmtree((guest.windows.root / HOSTS).parent)
    guest.compose(EngineOptions(cloud="gcp", recommended=("name_metadata_server",)))
    assert (guest.windows.root / HOSTS).read_bytes() == LINE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"10.0.0.9 metadata.google.internal\n", "says that metadata.google.internal is 10.0.0.9"),
        (b"#" * (1024 * 1024 + 1), "has 1048577 bytes, needed 1048576 or less"),
    ],
)
def test_a_hosts_file_that_means_something_else_is_refused(
    guest: Any, content: bytes, reason: str
) -> None:
    (guest.windows.root / HOSTS).write_bytes(content)
    with ExitStack() as stack:
        registry = guest.registry(stack)
        chosen = EngineOptions(cloud="gcp", recommended=("name_metadata_server",))
        found = step_refusals(guest.facts(registry, chosen))
        left_alone = step_refusals(guest.facts(registry, EngineOptions(cloud="gcp")))
    assert [item.code for item in found if item not in left_alone] == ["hosts_file"]
    assert any(reason in item.reason for item in found)


NEVER = (
    "Control\\Terminal Server", "RDP-Tcp", "TermService", "DisabledComponents", "Tcpip6",
    "FirewallPolicy", "DisableCAD", "PagingFiles", "Session Manager\\Environment", "AutoDetect",
    "AnimationDisabled", "KeyManagementService", "TimeZoneKeyName", "RemoteRegistry",
)  # fmt: skip


def test_with_every_step_chosen_this_is_still_not_touched(guest: Any) -> None:
    merge(guest, VIOSCSI)
    options = EngineOptions(cloud="gcp", recommended=recommended_names("gcp"))
    changes = guest.changes(options, apply=False)
    touched = [f"{change.path}\\{change.name}".lower() for change in changes]
    assert not [(path, place) for path in NEVER for place in touched if path.lower() in place]


def test_disks_must_come_online_and_the_verdict_says_so(guest: Any) -> None:
    options = EngineOptions(cloud="gcp")
    guest.compose(options)
    assert guest.judge(options=options)["disks_online"].passed
    merge(guest, OFFLINE)
    assert not guest.judge(options=options)["disks_online"].passed
