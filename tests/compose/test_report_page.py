"""The report as a page: everything is there, nothing renders, no secret, no flood."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import fields, replace
from typing import Any

import pytest

from imageport.compose.contract import (
    Action,
    Change,
    EngineOptions,
    EngineReport,
    Inspection,
    Refusal,
    StepNote,
    VerdictItem,
)
from imageport.compose.report_page import inspection_sections, report_markdown
from imageport.compose.steps.order import recommended_names
from imageport.model import GenerationRole
from imageport.sandbox.sample.hives import merge_text, with_parents
from imageport.state.records import Generation
from imageport.workflow.preflight import PreflightReport
from tasks._reporting import publish_report
from tasks.preflight import publish_preflight

INSPECTION = Inspection(
    product_name="Windows 11 Enterprise",
    build="10.0.22631",
    architecture="x86_64",
    edition="Enterprise-N",
    firmware="uefi",
    disk_guid="11111111-2222-3333-4444-555555555555",
    partitions=("1 EFI 100 MiB", "3 Windows 40 GiB"),
    control_sets=("ControlSet001", "ControlSet002"),
    current_control_set="ControlSet001",
    source_platform="vmware-host",
    source_tools=("vmware-tools", "xenserver-tools"),
    vda_version="2402.0.1",
    pvs_target_version="2402.0.2",
    machine_identity_version="2402.0.3",
    mcs_io_version="2402.0.4",
    provisioned_by="pvs-or-mcs",
    domain="corp.example",
    free_bytes=3 * 2**30,
    software=("Citrix VDA 2402",),
    drivers=("oem3.inf Maker 1.2.3.4 net",),
    network=("Ethernet0 10.0.0.5/24",),
    policies=("PowerShell execution policy AllSigned",),
)


def test_an_edition_that_windows_own_name_has_is_not_said_again() -> None:
    known = replace(INSPECTION, edition="Enterprise")
    assert "Windows 11 Enterprise 10.0.22631 x86" in inspection_sections(known)


def test_every_fact_of_the_inspection_is_on_the_page() -> None:
    page = inspection_sections(INSPECTION).replace("\\", "")
    shown = {"free_bytes": "3.0 GiB"}
    for field in fields(Inspection):
        value = shown.get(field.name, getattr(INSPECTION, field.name))
        for text in value if isinstance(value, tuple) else (value,):
            assert text in page, field.name


def test_a_disk_without_a_guest_has_no_table_of_one() -> None:
    assert inspection_sections(Inspection(disk_guid="x")) == ""


def test_the_plan_says_what_runs_why_and_what_does_not() -> None:
    steps = (
        StepNote("left_out", "recommended", "Does that.", chosen=False, reason="not asked for"),
        StepNote("runs", "required", "Does this.", chosen=True, reason="VMware Tools 12", made=7),
    )
    page = report_markdown(EngineReport(Action.PLAN, ok=True, steps=steps))
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| runs | required | yes | VMware Tools 12 | 7 | Does this. |",
        "| left\\_out | recommended | no | not asked for | 0 | Does that. |",
    ]


def test_every_change_has_its_kind_its_place_and_what_was_there_before() -> None:
    changes = (
        Change("s", "required", "registry", "HKLM\\A", "Start", "3", "0"),
        Change("s", "required", "file", "Windows/a.sys", after="sha256:1"),
        Change("s", "required", "disk", "partition 2", before="FAT32"),
    )
    page = report_markdown(EngineReport(Action.COMPOSE, ok=True, changes=changes))
    assert "## s (3)" in page
    assert "| registry | HKLM\\\\A Start | 3 | 0 |" in page
    assert "| file | Windows/a.sys | absent | sha256:1 |" in page
    assert "| disk | partition 2 | FAT32 | removed |" in page


NASTY = (
    "<img src=x onerror=alert(1)> ![a](http://e.example/x.png) [b](javascript:1) | cell\n# title "
    "`code` **bold** ~~gone~~ &lt;b&gt; https://e.example www.e.example a@e.example <http://e>"
)


def test_a_guest_cannot_make_the_page_render_anything() -> None:
    report = EngineReport(
        Action.PLAN,
        ok=False,
        inspection=Inspection(
            **{
                field.name: (NASTY,) if isinstance(field.default, tuple) else NASTY
                for field in fields(Inspection)
                if field.name != "free_bytes"
            }
        ),
        refusals=(Refusal(NASTY, NASTY, NASTY),),
        steps=(StepNote(NASTY, NASTY, NASTY, chosen=True, reason=NASTY),),
        changes=(Change(NASTY, NASTY, NASTY, NASTY, NASTY, NASTY, NASTY),),
        verdict=(VerdictItem(NASTY, passed=False, evidence=NASTY),),
        first_boot={NASTY: NASTY},
    )
    markdown_it = pytest.importorskip("markdown_it", reason="needs markdown-it-py")
    # The second opinion: a renderer that nobody here wrote.
    renderer = markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True})
    html = renderer.render(report_markdown(report))
    for tag in ("<img", "<a ", "<script", "<strong>b", "<code>code", "<s>", "<h1>title"):
        assert tag not in html.replace("<h1>What", ""), tag
    assert html.count("<h1>") == 1
    # Addresses become links by themselves in GitHub's dialect, for which the renderer lacks a part.
    page = report_markdown(report)
    for address in ("https://", "http://", "www.", "a@e"):
        assert address not in page, address
    columns = {row.count("<th") or row.count("<td") for row in html.split("<tr>")[1:]}
    assert columns == {1, 2, 3, 4, 6}


def test_a_guest_cannot_steer_a_terminal_or_leave_utf_8() -> None:
    page = inspection_sections(replace(INSPECTION, domain="a\x1b[2Jb\u202ec\ud800d\x00e\x9bf\ng"))
    assert "| a�\\[2Jb�c�d�e�f g |" in page
    assert page.encode()


def test_a_flood_of_rows_and_long_values_are_cut() -> None:
    software = tuple(f"Program {number}" for number in range(5000))
    page = report_markdown(
        EngineReport(
            Action.INSPECT, ok=True, inspection=replace(INSPECTION, software=software),
            changes=tuple(Change("s" * 500, "required", "file", "p" * 9999) for _ in range(5000)),
        )
    )  # fmt: skip
    assert "and 4800 more" in page
    assert len(page) < 120_000


# "5ecret-of-the-proxy" as WinHTTP keeps it: bytes.
PROXY = ",".join(f"{byte:02x}" for byte in b"http://u:5ecret-of-the-proxy@proxy:8080")
SECRETS = {
    "SOFTWARE": rf"""
[\Microsoft\Windows NT\CurrentVersion\Winlogon]
"AutoAdminLogon"="1"
"DefaultUserName"="administrator"
"DefaultPassword"="5ecret-of-the-logon"

[\Policies\Microsoft\Windows\WindowsUpdate]
"WUServer"="https://u:5ecret-of-wu@wsus.example"

[\Policies\Microsoft\Windows\System\Scripts\Startup\0\0]
"Script"="start.cmd"
"Parameters"="/password 5ecret-of-a-script"

[\Microsoft\Windows\CurrentVersion\Internet Settings\Connections]
"WinHttpSettings"=hex(3):{PROXY}

[\Microsoft\Windows\CurrentVersion\Run]
"Agent"="agent.exe -p 5ecret-of-run"

[\Microsoft\Windows\CurrentVersion\Uninstall\Agent]
"DisplayName"="Agent"
"DisplayVersion"="1.0"
"UninstallString"="agent.exe /key 5ecret-of-uninstall"
""",
    "SYSTEM": r"""
[\ControlSet001\Services\SNMP\Parameters\ValidCommunities]
"5ecret-community"=dword:00000004

[\ControlSet001\Services\LanmanServer\Parameters]
"Other"="5ecret-elsewhere"
""",
}


def plant(guest: Any) -> None:
    """Write secrets where Windows and its software keep them."""
    for hive, text in SECRETS.items():
        merge_text(guest.hive(hive), with_parents("", text))


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_no_secret_of_the_guest_is_in_report_page_or_artifact(
    guest: Any, cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(guest)
    options = EngineOptions(cloud=cloud, recommended=tuple(recommended_names(cloud)))
    if "azure_vm_agent" in options.recommended:
        left = tuple(name for name in options.recommended if name != "azure_vm_agent")
        options = replace(options, recommended=left)
    changes = tuple(guest.compose(options))
    verdict = tuple(guest.judge(options=options).values())
    report = EngineReport(
        Action.COMPOSE, ok=True, inspection=inspected(guest), steps=tuple(guest.notes),
        changes=changes, verdict=verdict,
    )  # fmt: skip
    assert len(changes) > 20
    shown = artifacts_of(report, monkeypatch)
    assert [text for text in shown if "## The guest" in text] == shown
    for text in (report.to_json(), report_markdown(report), *shown):
        assert "5ecret" not in text


def artifacts_of(report: EngineReport, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What preflight and prepare would store beside a run."""
    stored: list[str] = []

    def create(*, key: str, markdown: str, description: str) -> None:
        assert key
        assert description.endswith(".")
        stored.append(markdown)

    monkeypatch.setattr("tasks._reporting.create_markdown_artifact", create)
    publish_preflight(PreflightReport("gold", "key", 2**30, 2**20, report, (), ("A note.",)))
    details = {"composed": report.to_json(), "verified": report.to_json(), "engine": "site"}
    prepared = Generation(
        "p-1", "gold", "aws/r/b", GenerationRole.PREPARED, "2026", 8, "k", "d", {}, "", details
    )
    publish_report(prepared)
    assert len(stored) == 2
    return stored


def inspected(guest: Any) -> Inspection:
    with ExitStack() as stack:
        found: Inspection = guest.facts(guest.registry(stack)).inspection
        return found
