# References: Compute Engine, "VM instance lifecycle"; REST v1 "instances.getScreenshot".
"""Boots the composed disk once, as the boot disk of a machine that firewall rules isolate.

The guest says that it is finished by shutting down, which Google shows as ``TERMINATED``. A reboot
does not count: the status stays ``RUNNING`` over it. Who stopped a machine stands in the zone's
operations.
"""

from __future__ import annotations

import base64
import time
from typing import Final

from imageport.cloud import BootOutcome, Cancelled, CloudDisk, never
from imageport.clouds.boot_console import BootConsole
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.disks import wait_free
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.instances import (
    MachineFacts,
    MachineOfRun,
    MachinePlan,
    console_text,
    describe_machine,
    who_ended,
    work_disk,
)
from imageport.clouds.gcp.job_folder import JobFolder
from imageport.clouds.gcp.network import RulesOfRun, isolated_rules, require_isolation
from imageport.clouds.waiting import wait_until
from imageport.errors import CloudError
from imageport.progress import Stage

FREE_SECONDS: Final = 300.0
GRACE_SECONDS: Final = 1200.0
"""Beyond the deadline until Google ends a machine that nobody watches: a killed worker comes back
within this time and takes it up."""
SCREENSHOT: Final = "screenshot.jpg"


def boot_once(
    account: GcpAccount,
    disk: CloudDisk,
    deadline_seconds: float,
    stage: Stage,
    cancelled: Cancelled = never,
) -> BootOutcome:
    """Boot the disk until it shuts down; everything but the disk is removed afterwards.

    A call after a crash takes up the machine of the killed call: a guest that is in the middle of
    its first boot is waited for, never powered off.
    """
    account.settings.require("subnet")
    require_isolation(account)
    machine = MachineOfRun(account, "boot", disk.id)
    rules = isolated_rules(account)
    try:
        rules.make()
        if machine.take_up() is None:
            machine.create(_plan(account, disk, rules.tags, deadline_seconds), cancelled)
        stage.note(f"machine {machine.id} boots {disk.id}")
        return _await_shutdown(account, machine.id, deadline_seconds, stage, cancelled)
    finally:
        for left in _clean_up(account, disk.id, machine, rules):
            stage.note(f"left for the sweep: {left}")


def _plan(
    account: GcpAccount, disk: CloudDisk, network_tags: tuple[str, ...], deadline_seconds: float
) -> MachinePlan:
    settings = account.settings
    return MachinePlan(
        machine_type=settings.boot_machine_type,
        subnet=settings.boot_subnet or settings.subnet,
        network_tags=network_tags,
        disks=[work_disk(disk.id, boot=True)],
        max_run_seconds=deadline_seconds + GRACE_SECONDS,
        nic_type=settings.nic_type,
        # Stopped, it still shows its console and who ended it.
        ends_deleted=False,
        display=True,
    )


def _await_shutdown(
    account: GcpAccount,
    machine_id: str,
    deadline_seconds: float,
    stage: Stage,
    cancelled: Cancelled,
) -> BootOutcome:
    console = BootConsole(lambda: console_text(account, machine_id), stage)
    started = time.monotonic()
    gone = MachineFacts(machine_id, 0, "")

    def check() -> MachineFacts | None:
        facts = describe_machine(account, machine_id)
        if facts is None or facts.is_over:
            return facts or gone
        console.poll()
        return None

    facts = wait_until(check, deadline_seconds, cancelled=cancelled, pulse=account.live)
    seconds = time.monotonic() - started
    console.poll(force=True)
    if facts is None:
        reason = f"still running after {deadline_seconds:.0f} s; {_screenshot(account, machine_id)}"
        return BootOutcome(
            stopped_by_itself=False, seconds=seconds, console_text=console.text, reason=reason
        )
    reason = who_ended(account, facts) if facts is not gone else "the machine is gone"
    return BootOutcome(not reason, seconds, console.text, reason)


def _screenshot(account: GcpAccount, machine_id: str) -> str:
    """Save a screenshot to the bucket; returns one phrase for the reason."""
    named = account.own(machine_id, "instances")
    try:
        with asked("compute.instances.getScreenshot", machine_id):
            answer = account.clients.instances.get_screenshot(
                project=named.project, zone=named.zone, instance=named.name
            )
        if not answer.contents:
            return "no screenshot (Google has none)"
        folder = JobFolder(account, "screenshot", machine_id)
        folder.write(SCREENSHOT, base64.b64decode(answer.contents))
    except CloudError as error:
        return f"no screenshot ({error.code})"
    return f"screenshot at gs://{account.settings.bucket}/{folder.prefix}{SCREENSHOT}"


def _clean_up(
    account: GcpAccount, disk_id: str, machine: MachineOfRun, rules: RulesOfRun
) -> list[str]:
    """Free the disk and remove everything else; returns what stayed."""
    # Deleting switches off, and the rules that isolate go last.
    steps = [
        (machine.expected_id, machine.remove),
        (disk_id, lambda: wait_free(account, disk_id, FREE_SECONDS)),
        (", ".join(rules.tags), rules.remove),
    ]
    return account.undo_all(steps)
