# References: cloud-init, "User data formats"; Azure Linux agent, "Troubleshoot disk names (udev)".
"""The engine machine: made on demand, one job, one report, gone.

It has no identity. What it may do is in signed URLs: fetch three blobs, write two. A machine that
nobody watches any more shuts down by itself; Azure bills it in that state until the sweep deletes
it.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imageport.cloud import Cancelled, never
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.boot_diagnostics import read_diagnostics
from imageport.clouds.azure.engine_image import EngineImage, find_engine_image
from imageport.clouds.azure.job_folder import PUT_HEADERS, JobFolder
from imageport.clouds.azure.machine_sizes import NVME, disk_controller
from imageport.clouds.azure.network import engine_group, engine_rules
from imageport.clouds.azure.virtual_machines import (
    MachineOfRun,
    MachinePlan,
    describe_machine,
)
from imageport.clouds.azure.waiting import wait_until
from imageport.clouds.engine_setup import REPORT, DeviceNames, EngineRun, ReportWatch, write_setup
from imageport.compose.contract import EngineReport
from imageport.progress import Stage

LUN: Final = 0
DEVICES: Final = (f"disk/azure/scsi1/lun{LUN}", f"disk/azure/data/by-lun/{LUN}")
"""Links of the Azure Linux agent's udev rules and of the newer azure-vm-utils."""
NVME_DEVICE: Final = f"nvme0n{LUN + 2}"
"""Without those rules: namespace 1 is the system's own disk, data disks follow by LUN."""
ADMIN_NAME: Final = "imageport"
KEY_BITS: Final = 2048
"""Least that Azure takes; nobody ever signs in with it."""


def run_engine(
    account: AzureAccount, run: EngineRun, stage: Stage, cancelled: Cancelled = never
) -> EngineReport:
    """Run the job and return the report; `EngineFailed` when none arrived. Leaves nothing behind.

    A call after a crash finds the machine of the killed call and waits for its report.
    """
    account.settings.require("job_container_url", "subnet_id")
    facts = (run.disk.id.lower(), hashlib.sha256(run.job.to_json().encode()).hexdigest())
    folder = JobFolder(account, "engine-job", *facts)
    machine = MachineOfRun(account, "engine", *facts)
    group = engine_group(account)
    try:
        image = find_engine_image(account.settings)
        group.make(engine_rules(installs=image.laboratory))
        machine.take_up()
        if not machine.id and folder.read(REPORT) is None:
            plan = _plan(account, run, folder, (image, group.id))
            if image.laboratory:
                stage.note(f"no engine image named: {image} gets its packages at boot (laboratory)")
            machine.create(plan, cancelled)
        if machine.id:
            stage.note(f"engine runs on {machine.id}")
        return _await_report(account, run, folder, machine.id, cancelled)
    finally:
        steps = [
            (machine.expected_id, machine.remove),
            (folder.prefix, folder.delete),
            (group.id, group.remove),
        ]
        for left in account.undo_all(steps):
            stage.note(f"left for the sweep: {left}")


def _plan(
    account: AzureAccount, run: EngineRun, folder: JobFolder, place: tuple[EngineImage, str]
) -> MachinePlan:
    image, group_id = place
    size = account.settings.engine_vm_size
    controller = disk_controller(account, size)
    devices = (*DEVICES, NVME_DEVICE) if controller == NVME else DEVICES
    script = write_setup(run, folder, DeviceNames(devices, PUT_HEADERS))
    storage: dict[str, Any] = {
        "imageReference": image.reference,
        "osDisk": {
            "createOption": "FromImage",
            "deleteOption": "Delete",
            "managedDisk": {"storageAccountType": "StandardSSD_LRS"},
        },
        "dataDisks": [
            {
                "lun": LUN,
                "createOption": "Attach",
                "deleteOption": "Detach",
                "caching": "None",
                "managedDisk": {"id": run.disk.id},
            }
        ],
    }
    if controller:
        storage["diskControllerType"] = controller
    return MachinePlan(size, account.settings.subnet_id, group_id, storage, _system(script))


def _system(script: str) -> dict[str, Any]:
    """Return ``osProfile``: nobody can sign in, and no agent takes orders."""
    path = f"/home/{ADMIN_NAME}/.ssh/authorized_keys"
    return {
        "computerName": "imageport-engine",
        "adminUsername": ADMIN_NAME,
        "customData": base64.b64encode(script.encode()).decode(),
        "allowExtensionOperations": False,
        "linuxConfiguration": {
            "disablePasswordAuthentication": True,
            "provisionVMAgent": False,
            "ssh": {"publicKeys": [{"path": path, "keyData": _lost_key()}]},
        },
    }


def _lost_key() -> str:
    """Return a public key whose private half is forgotten here: Azure makes no Linux without."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _await_report(
    account: AzureAccount, run: EngineRun, folder: JobFolder, machine_id: str, cancelled: Cancelled
) -> EngineReport:
    def ended() -> str:
        facts = describe_machine(account, machine_id)
        if facts is None:
            return "the machine is gone"
        return "the machine ended without a report" if facts.is_over else ""

    watch = ReportWatch(run, folder, machine_id, ended)
    found = wait_until(watch.check, run.machine_seconds, cancelled=cancelled, pulse=account.live)
    return watch.report(found, lambda: read_diagnostics(account, machine_id).console_text)
