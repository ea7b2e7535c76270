# References: Compute Engine, "Use startup scripts on Linux VMs"; "Limit the run time of a VM".
"""The engine machine: made on demand, one job, one report, gone.

It has no service account. What it may do is in signed URLs: fetch three objects, write two. A
machine that nobody watches any more shuts down by itself, and Google deletes it in the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from imageport.cloud import Cancelled, never
from imageport.clouds.engine_setup import (
    REPORT,
    DeviceNames,
    EngineRun,
    ReportWatch,
    WatchedRun,
    write_setup,
)
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.engine_image import find_engine_image
from imageport.clouds.gcp.instances import (
    WORK_DEVICE,
    MachineOfRun,
    MachinePlan,
    console_text,
    describe_machine,
    image_disk,
    work_disk,
)
from imageport.clouds.gcp.job_folder import JobFolder
from imageport.clouds.gcp.network import engine_rules
from imageport.clouds.waiting import wait_until
from imageport.compose.contract import EngineReport
from imageport.progress import Stage

DEVICES: Final = (f"disk/by-id/google-{WORK_DEVICE}",)
"""Link of Google's udev rules, which every public image has, for SCSI and for NVMe disks."""
AFTER_SECONDS: Final = 900.0
"""Beyond the machine's own end until Google deletes it: a killed worker comes back within this time
and reads the console."""


class JobMachine:
    """One machine with the disk attached, for one job: with its folder and its firewall rules.

    Args:
        account: Of the run.
        role: Of the machine, ``engine`` or ``segments``.
        disk_id: The disk that is worked on.
        facts: What else the job is; the same facts find machine and folder of a killed call.
    """

    def __init__(self, account: GcpAccount, role: str, disk_id: str, *facts: str) -> None:
        account.settings.require("subnet")
        self.image = find_engine_image(account.settings)
        self.folder = JobFolder(account, f"{role}-job", disk_id, *facts)
        self._account = account
        self._disk_id = disk_id
        self._machine = MachineOfRun(account, role, disk_id, *facts)
        self._rules = engine_rules(account, installs=self.image.laboratory)

    @property
    def id(self) -> str:
        """Return the id of the machine; "" when there is none (any more)."""
        return self._machine.id

    def start(
        self,
        script: Callable[[], str],
        seconds: float,
        *,
        read_only: bool = False,
        cancelled: Cancelled = never,
    ) -> None:
        """Take up the machine of a killed call, or make it unless its report is there already.

        Args:
            script: Writes the job to the folder and returns the machine's script.
            seconds: After which the machine ends by itself.
            read_only: Whether the disk is attached so.
            cancelled: Asked while the machine is made.
        """
        self._rules.make()
        self._machine.take_up()
        if self._machine.id or self.folder.read(REPORT) is not None:
            return
        settings = self._account.settings
        disks = [
            image_disk(settings, self.image.source, self._machine.tags),
            work_disk(self._disk_id, read_only=read_only),
        ]
        plan = MachinePlan(
            machine_type=settings.engine_machine_type,
            subnet=settings.subnet,
            network_tags=self._rules.tags,
            disks=disks,
            max_run_seconds=seconds + AFTER_SECONDS,
            startup_script=script(),
        )
        self._machine.create(plan, cancelled)

    def watch(self, run: WatchedRun) -> ReportWatch:
        """Return what looks for the report of the job."""

        def ended() -> str:
            facts = describe_machine(self._account, self._machine.id)
            if facts is None:
                return "the machine is gone"
            return "the machine ended without a report" if facts.is_over else ""

        return ReportWatch(run, self.folder, self._machine.id, ended)

    def console(self) -> str:
        """Return what the machine wrote to its serial port."""
        return console_text(self._account, self._machine.id)

    def remove(self) -> list[str]:
        """Remove machine, folder and rules; returns what stayed and why."""
        steps = [
            (self._machine.expected_id, self._machine.remove),
            (self.folder.id, self.folder.delete),
            ("firewall rules", self._rules.remove),
        ]
        return self._account.undo_all(steps)


def run_engine(
    account: GcpAccount, run: EngineRun, stage: Stage, cancelled: Cancelled = never
) -> EngineReport:
    """Run the job and return the report; `EngineFailed` when none arrived. Leaves nothing behind.

    A call after a crash finds the machine of the killed call and waits for its report.
    """
    digest = hashlib.sha256(run.job.to_json().encode()).hexdigest()
    machine = JobMachine(account, "engine", run.disk.id, digest)
    names = DeviceNames(DEVICES, machine.folder.put_headers)

    def script() -> str:
        if machine.image.laboratory:
            name = machine.image
            stage.note(f"no engine image named: {name} gets its packages at boot (laboratory)")
        return write_setup(run, machine.folder, names)

    try:
        machine.start(script, run.machine_seconds, cancelled=cancelled)
        if machine.id:
            stage.note(f"engine runs on {machine.id}")
        watch = machine.watch(run)
        found = wait_until(
            watch.check, run.machine_seconds, cancelled=cancelled, pulse=account.live
        )
        return watch.report(found, machine.console)
    finally:
        for left in machine.remove():
            stage.note(f"left for the sweep: {left}")
