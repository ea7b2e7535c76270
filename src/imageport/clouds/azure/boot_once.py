# References: Azure, "States and billing of virtual machines", "Boot diagnostics".
"""Boots the composed disk once, as the system disk of a machine that reaches no network.

The guest says that it is finished by shutting down, which Azure shows as ``stopped``; whoever stops
a machine from outside leaves it ``deallocated``. A reboot does not count: Azure keeps the state
``running`` over it.
"""

from __future__ import annotations

from typing import Any, Final

from imageport.cloud import BootOutcome, Cancelled, CloudDisk, never
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.boot_diagnostics import read_diagnostics
from imageport.clouds.azure.disks import wait_free
from imageport.clouds.azure.job_folder import JobFolder
from imageport.clouds.azure.machine_sizes import disk_controller
from imageport.clouds.azure.network import GroupOfRun, isolated_group, isolated_rules
from imageport.clouds.azure.virtual_machines import (
    MachineFacts,
    MachineOfRun,
    MachinePlan,
    describe_machine,
    power_off,
)
from imageport.clouds.booted_machine import BootedMachine
from imageport.progress import Stage

FREE_SECONDS: Final = 300.0
SCREENSHOT: Final = "screenshot.bmp"


def boot_once(
    account: AzureAccount,
    disk: CloudDisk,
    deadline_seconds: float,
    stage: Stage,
    cancelled: Cancelled = never,
) -> BootOutcome:
    """Boot the disk until it shuts down; everything but the disk is removed afterwards.

    A call after a crash takes up the machine of the killed call: a guest that is in the middle of
    its first boot is waited for, never powered off.
    """
    account.settings.require("subnet_id")
    machine = MachineOfRun(account, "boot", disk.id.lower())
    group = isolated_group(account)
    try:
        group.make(isolated_rules(account.settings))
        if machine.take_up() is None:
            machine.create(_plan(account, disk, group.id), cancelled)
        stage.note(f"machine {machine.id} boots {disk.id}")
        booted = _Booted(account, machine.id)
        return booted.await_shutdown(deadline_seconds, stage, cancelled, account.live)
    finally:
        for left in _clean_up(account, disk.id, machine, group):
            stage.note(f"left for the sweep: {left}")


def _plan(account: AzureAccount, disk: CloudDisk, group_id: str) -> MachinePlan:
    settings = account.settings
    storage: dict[str, Any] = {
        # No securityProfile, no osProfile: the disk is booted as it is.
        "osDisk": {
            "createOption": "Attach",
            "deleteOption": "Detach",
            "osType": "Windows",
            "caching": "None",
            "managedDisk": {"id": disk.id},
        },
    }
    controller = disk_controller(account, settings.boot_vm_size)
    if controller:
        storage["diskControllerType"] = controller
    subnet_id = settings.boot_subnet_id or settings.subnet_id
    return MachinePlan(settings.boot_vm_size, subnet_id, group_id, storage)


class _Booted(BootedMachine[MachineFacts]):
    def __init__(self, account: AzureAccount, machine_id: str) -> None:
        self._account = account
        self._id = machine_id

    def over(self) -> MachineFacts | None:
        """Return the facts of a machine that is off, or of one that is gone."""
        facts = describe_machine(self._account, self._id)
        if facts is None:
            return MachineFacts(self._id, "deleted", "", "the machine is gone")
        return facts if facts.is_over else None

    def ended_from_outside(self, facts: MachineFacts) -> str:
        """Tell ``stopped``, which a guest's shutdown leaves, from every other end."""
        return "" if facts.power == "stopped" else facts.failure or f"{facts.power} from outside"

    def console_text(self) -> str:
        """Return the serial log of the boot diagnostics."""
        return read_diagnostics(self._account, self._id).console_text

    def screenshot(self) -> str:
        """Save a screenshot to the job container."""
        container = self._account.settings.job_container_url.rstrip("/")
        if not container:
            return "no screenshot (no job_container_url)"
        image = read_diagnostics(self._account, self._id, screenshot=True).screenshot
        if not image:
            return "no screenshot (Azure has none)"
        folder = JobFolder(self._account, "screenshot", self._id.lower())
        folder.write(SCREENSHOT, image)
        return f"screenshot at {container}/{folder.prefix}{SCREENSHOT}"


def _clean_up(
    account: AzureAccount, disk_id: str, machine: MachineOfRun, group: GroupOfRun
) -> list[str]:
    """Free the disk and remove everything else; returns what stayed."""
    # Deleting gives the hardware back by itself, but would first ask a guest that hangs.
    steps = [
        (machine.expected_id, lambda: _power_off(account, machine.expected_id)),
        (machine.expected_id, machine.remove),
        (disk_id, lambda: wait_free(account, disk_id, FREE_SECONDS)),
        (group.id, group.remove),
    ]
    return account.undo_all(steps)


def _power_off(account: AzureAccount, machine_id: str) -> None:
    facts = describe_machine(account, machine_id)
    if facts is not None and facts.power and not facts.is_over:
        power_off(account, machine_id)
