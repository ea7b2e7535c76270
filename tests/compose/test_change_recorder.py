"""The recorder: values before and after, nothing when nothing changes, secrets only as digests."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineReport, Inspection, Refusal, VerdictItem
from imageport.compose.hives.registry_value import Value
from imageport.compose.recorder import Recorder, shown
from imageport.compose.report_page import report_markdown
from imageport.compose.volumes.descriptors import Access
from imageport.compose.volumes.guest_files import PendingFiles
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
