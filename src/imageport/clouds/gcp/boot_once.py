# References: Compute Engine, "VM instance lifecycle"; REST v1 "instances.getScreenshot".
"""Boots the composed disk once, as the boot disk of a machine that firewall rules isolate.

The guest says that it is finished by shutting down, which Google shows as ``TERMINATED``. A reboot
does not count: the status stays ``RUNNING`` over it. Who stopped a machine stands in the zone's
operations.
"""

from __future__ import annotations

import base64
from typing import Final

from imageport.cloud import BootOutcome, Cancelled, CloudDisk, never
from imageport.clouds.booted_machine import BootedMachine
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
        booted = _Booted(account, machine.id)
        return booted.await_shutdown(deadline_seconds, stage, cancelled, account.live)
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


class _Booted(BootedMachine[MachineFacts]):
    def __init__(self, account: GcpAccount, machine_id: str) -> None:
        self._account = account
        self._id = machine_id

    def over(self) -> MachineFacts | None:
        """Return the facts of a machine that is off, or of one that is gone."""
        facts = describe_machine(self._account, self._id)
        if facts is None:
            return MachineFacts(self._id, 0, "")
        return facts if facts.is_over else None

    def ended_from_outside(self, facts: MachineFacts) -> str:
        """Ask the zone's operations about a machine that is still there."""
        return who_ended(self._account, facts) if facts.number else "the machine is gone"

    def console_text(self) -> str:
        """Return what the first serial port showed."""
        return console_text(self._account, self._id)

    def screenshot(self) -> str:
        """Save a screenshot to the bucket."""
        named = self._account.own(self._id, "instances")
        with asked("compute.instances.getScreenshot", self._id):
            answer = self._account.clients.instances.get_screenshot(
                project=named.project, zone=named.zone, instance=named.name
            )
        if not answer.contents:
            return "no screenshot (Google has none)"
        folder = JobFolder(self._account, "screenshot", self._id)
        folder.write(SCREENSHOT, base64.b64decode(answer.contents))
        return f"screenshot at gs://{self._account.settings.bucket}/{folder.prefix}{SCREENSHOT}"


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
