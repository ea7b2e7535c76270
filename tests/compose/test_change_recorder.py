"""The recorder: values before and after, nothing when nothing changes, secrets only as digests."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imageport.compose import recorder as recorder_module
from imageport.compose.contract import Action, EngineReport, Inspection, Refusal, VerdictItem
from imageport.compose.hives.registry import Registry
from imageport.compose.hives.registry_value import Value
from imageport.compose.recorder import Recorder, content_digest, shown
from imageport.compose.report_page import report_markdown
from imageport.compose.volumes.descriptors import Access
from imageport.compose.volumes.guest_files import PendingFiles
from imageport.compose.volumes.local_files import LocalFiles
from imageport.errors import EngineFailed

SECRET = "Passw0rd-that-nobody-may-read"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("HKLM\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\Winlogon", "DefaultPassword"),
        ("HKLM\\SYSTEM\\ControlSet001\\Services\\SNMP\\Parameters\\ValidCommunities", SECRET),
        (
            "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Internet Settings",
            "ProxyServer",
        ),
        (
            "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Internet Settings\\Connections",
            "WinHttpSettings",
        ),
        ("HKLM\\SYSTEM\\ControlSet001\\Control\\Lsa\\Data", "x"),
        ("HKLM\\SECURITY\\Policy\\Secrets\\$MACHINE.ACC", "CurrVal"),
        ("HKLM\\SOFTWARE\\Vendor", "ApiSecret"),
        ("HKLM\\SOFTWARE\\Vendor", "SharedAccessKey"),
        ("HKLM\\SOFTWARE\\Vendor\\Storage Access Keys", "1"),
        ("HKLM\\SOFTWARE\\Vendor", "UserPwd"),
        ("HKLM\\SOFTWARE\\Vendor", "Passphrase"),
        ("HKLM\\SOFTWARE\\Vendor", "ConnectionString"),
        ("HKLM\\SOFTWARE\\Vendor\\Wlan", "PSK"),
    ],
)
def test_sensitive_values_show_as_digest_only(path: str, name: str) -> None:
    text = shown(path, name, Value.text(SECRET))
    assert text.startswith("sha256:")
    assert SECRET not in text


def test_switches_about_passwords_are_no_secrets() -> None:
    path = "HKLM\\SYSTEM\\ControlSet001\\Services\\Netlogon\\Parameters"
    assert shown(path, "DisablePasswordChange", Value.dword(0)) == "REG_DWORD 0"


def test_a_deleted_key_reports_its_content_without_secrets(guest: Any) -> None:
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        recorder = Recorder(registry, PendingFiles(guest.windows))
        recorder.begin("a_step", "required")
        recorder.set_value("SOFTWARE", "Vendor\\Login", "Password", Value.text(SECRET))
        recorder.set_value("SOFTWARE", "Vendor\\Login", "User", Value.text("someone"))
        recorder.delete_key("SOFTWARE", "Vendor")
        assert registry.key("SOFTWARE", "Vendor") is None
    last = recorder.changes[-1]
    assert "Login\\User=REG_SZ someone" in last.before
    assert last.after == ""
    assert SECRET not in json.dumps([str(change) for change in recorder.changes])


def test_names_that_are_secrets_are_not_shown_either(guest: Any) -> None:
    snmp = "ControlSet001\\Services\\SNMP\\Parameters"
    with ExitStack() as stack:
        recorder = Recorder(registry := guest.registry(stack, writable=True), guest.windows)
        for name in (SECRET, f"with\\{SECRET}"):
            recorder.set_value("SYSTEM", f"{snmp}\\ValidCommunities", name, Value.dword(4))
        trap = f"{snmp}\\TrapConfiguration\\{SECRET}"
        recorder.set_value("SYSTEM", trap, "1", Value.text("10.0.0.1"))
        recorder.delete_value("SYSTEM", f"{snmp}\\ValidCommunities", SECRET)
        recorder.delete_key("SYSTEM", snmp)
        assert registry.key("SYSTEM", snmp) is None
    assert len(recorder.changes) == 5
    assert SECRET not in json.dumps([str(change) for change in recorder.changes])
    assert all("sha256:" in change.name for change in recorder.changes[:2])
    assert recorder.changes[2].name == "1"


def test_names_and_values_of_a_guest_move_no_cursor(guest: Any) -> None:
    with ExitStack() as stack:
        recorder = Recorder(guest.registry(stack, writable=True), PendingFiles(guest.windows))
        recorder.set_value("SOFTWARE", "Odd\x1b[2J", "Na\nme", Value.text("a\tb"))
        recorder.delete_key("SOFTWARE", "Odd\x1b[2J")
    made, deleted = recorder.changes
    assert (made.path, made.name) == ("HKLM\\SOFTWARE\\Odd\\x1b[2J", "Na\\x0ame")
    assert made.after == "REG_SZ a\\x09b"
    assert deleted.before == "Na\\x0ame=REG_SZ a\\x09b"


def test_what_is_already_so_is_no_change(guest: Any) -> None:
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        recorder = Recorder(registry, PendingFiles(guest.windows))
        recorder.set_value("SYSTEM", "ControlSet001\\Services\\disk", "Start", Value.dword(0))
        recorder.delete_key("SYSTEM", "ControlSet001\\NoSuchKey")
        recorder.delete_value("SYSTEM", "ControlSet001\\Services\\disk", "NoSuchValue")
    assert recorder.changes == []


def test_a_file_that_exists_is_never_replaced(guest: Any) -> None:
    pending = PendingFiles(guest.windows)
    with pytest.raises(EngineFailed, match="exists already"):
        pending.add_file("Windows/System32/CMD.exe", b"x", Access.USERS_READ)
    pending.add_file("Windows/new.txt", b"x", Access.USERS_READ)
    with pytest.raises(EngineFailed, match="exists already"):
        pending.add_file("windows/NEW.txt", b"x", Access.USERS_READ)


class ClosedFiles(LocalFiles):
    """A volume whose files may be sized, not read."""

    def read(self, path: str, limit_bytes: int) -> bytes:
        raise AssertionError(f"{path} was read, {limit_bytes} bytes")

    def download(self, path: str, to: Path) -> None:
        raise AssertionError(f"{path} was copied to {to}")


@pytest.mark.parametrize(("before", "is_told"), [(b"0123456789", False), (b"01234567", True)])
def test_of_a_large_file_that_goes_only_the_size_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, is_told: bool
) -> None:
    monkeypatch.setattr(recorder_module, "_MAX_DIGEST_BYTES", 8)
    shown_as = content_digest(before) if is_told else f"{len(before)} bytes"
    kind_of_files = LocalFiles if is_told else ClosedFiles
    for change in ("replace_file", "remove"):
        (tmp_path / "large.bin").write_bytes(before)
        recorder = Recorder(Registry({}), kind_of_files(tmp_path))
        if change == "remove":
            recorder.remove("large.bin")
        else:
            recorder.replace_file("large.bin", b"another length")
            assert (tmp_path / "large.bin").read_bytes() == b"another length"
        assert [one.before for one in recorder.changes] == [shown_as]


@pytest.mark.parametrize("content", [b"0123456789", b"9876543210"])
def test_a_large_file_as_long_as_the_new_content_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(recorder_module, "_MAX_DIGEST_BYTES", 8)
    (tmp_path / "large.bin").write_bytes(b"0123456789")
    source = tmp_path / "new"
    source.write_bytes(content)
    recorder = Recorder(Registry({}), LocalFiles(tmp_path))
    recorder.replace_file("large.bin", source)
    told = [(one.before, one.after) for one in recorder.changes]
    is_same = content == b"0123456789"
    assert told == ([] if is_same else [(content_digest(b"0123456789"), content_digest(content))])


def test_the_overlay_shows_what_will_be_and_writes_nothing(guest: Any) -> None:
    pending = PendingFiles(guest.windows)
    pending.add_folder("Windows/New", Access.ADMINISTRATORS_ONLY)
    pending.add_file("Windows/New/a.txt", b"hello", Access.ADMINISTRATORS_ONLY)
    assert pending.names("Windows/New") == ["a.txt"]
    assert "New" in pending.names("Windows")
    assert pending.read("windows/new/A.TXT", 3) == b"hel"
    assert pending.size_bytes("Windows/New/a.txt") == 5
    assert not guest.windows.exists("Windows/New")
    pending.apply()
    assert guest.windows.read("Windows/New/a.txt", 10) == b"hello"


def test_a_page_for_people_cannot_be_turned_into_something_else() -> None:
    nasty = "x | <script>alert(1)</script> [a](http://b) ![c](d)\nnew line"
    report = EngineReport(
        Action.COMPOSE,
        ok=False,
        inspection=Inspection(product_name=nasty),
        refusals=(Refusal("hibernated", nasty, "hint"),),
        verdict=(VerdictItem("boot_store", passed=False, evidence=nasty),),
        first_boot={"state": nasty, "log": nasty},
    )
    page = report_markdown(report)
    assert "<script>" not in page
    assert "\\[a\\](http" in page
    assert "\\!\\[c" in page
    assert "[a](" not in page
    assert "Refused" in page


def test_a_page_shows_changes_by_step_and_the_verdict() -> None:
    with_verdict = EngineReport(
        Action.COMPOSE,
        ok=True,
        engine_id="abc",
        verdict=(VerdictItem("firmware", passed=True, evidence="GPT"),),
    )
    assert "all 1 verdict items passed" in report_markdown(with_verdict)
    assert "Nothing stands against it" in report_markdown(EngineReport(Action.INSPECT, ok=True))
