# References: xapi-project/xen-api, ocaml/xapi: xapi_vm_snapshot, xapi_vm, xapi_vdi, xapi_vbd,
# xapi_task; XenServer Management API, classes VM, VDI, VBD, task.
"""What the messages of the API do to the pool's records; each runs under the pool's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imageport.sandbox.xenserver.failure import Failure
from imageport.sandbox.xenserver.knobs import Knobs
from imageport.sandbox.xenserver.records import LONG_AGO, NULL, Record, Records, now
from imageport.sandbox.xenserver.storage import DiskFolder

COMPLETED = ("success", "failure", "cancelled")
Caller = Record
"""The session's record: ``permissions``, ``subject``."""


class Machines:
    """Machines, disks, attachments and tasks of one pool."""

    def __init__(self, records: Records, disks: DiskFolder, knobs: Knobs) -> None:
        self.records = records
        self.disks = disks
        self.knobs = knobs
        self.messages: dict[str, Callable[..., Any]] = {
            "VM.snapshot": self.snapshot,
            "VM.destroy": self.destroy_machine,
            "VDI.destroy": self.destroy_disk,
            "VBD.unplug": self.unplug,
            "VBD.destroy": self.destroy_attachment,
            "task.create": self.create_task,
            "task.cancel": self.cancel_task,
            "task.destroy": self.destroy_task,
            "task.set_status": self.set_task_status,
        }

    # -- machines and disks ---------------------------------------------------------------------

    def snapshot(
        self, _caller: Caller, machine: str, name: str, ignored: list[str] | None = None
    ) -> str:
        """Freeze all disks of a machine; discs in its drives are shared, not frozen."""
        source = self.records.get("VM", machine)
        if self.knobs.snapshot_failure:
            raise Failure(*self.knobs.snapshot_failure)
        if source["is_control_domain"]:
            raise Failure("OPERATION_NOT_ALLOWED", "control domain")
        fields = {key: value for key, value in source.items() if key != "uuid"} | {
            "name_label": name, "is_a_template": True, "is_a_snapshot": True,
            "snapshot_of": machine, "snapshot_time": now(), "snapshots": [], "VBDs": [],
            "power_state": "Halted", "suspend_VDI": NULL,
        }  # fmt: skip
        frozen = self.records.add("VM", **fields)
        source["snapshots"].append(frozen)
        for ref in list(source["VBDs"]):
            old = self.records.get("VBD", ref)
            disk = old["VDI"]
            if old["type"] == "Disk" and disk not in (ignored or []):
                disk = self._freeze(disk)
            self.attach(frozen, disk, {**old, "currently_attached": False})
        return frozen

    def _freeze(self, disk: str) -> str:
        old = self.records.get("VDI", disk)
        fields = {key: value for key, value in old.items() if key != "uuid"} | {
            "is_a_snapshot": True, "snapshot_of": disk, "snapshot_time": now(),
            "snapshots": [], "VBDs": [],
        }  # fmt: skip
        new = self.records.add("VDI", **fields)
        self.disks.copy(old["uuid"], self.records.get("VDI", new)["uuid"])
        old["snapshots"].append(new)
        return new

    def attach(self, machine: str, disk: str, fields: Record) -> str:
        """Make a VBD; ``fields`` are its other fields."""
        known = {
            "type": "Disk", "mode": "RW", "userdevice": "0", "bootable": False, "empty": False,
            "currently_attached": False, "other_config": {}, "device": "",
        }  # fmt: skip
        given = {key: value for key, value in fields.items() if key in known}
        ref = self.records.add("VBD", VM=machine, VDI=disk, **(known | given))
        self.records.get("VM", machine)["VBDs"].append(ref)
        vdi = self.records.find("VDI", disk)
        if vdi is not None:
            vdi["VBDs"].append(ref)
        return ref

    def destroy_machine(self, _caller: Caller, machine: str) -> str:
        """Remove a halted machine or snapshot with its VBDs; its disks stay."""
        record = self.records.get("VM", machine)
        if record["power_state"] != "Halted":
            raise Failure("VM_BAD_POWER_STATE", machine, "halted", record["power_state"].lower())
        for ref in list(record["VBDs"]):
            self._forget_attachment(ref)
        source = self.records.find("VM", record["snapshot_of"])
        if source is not None:
            source["snapshots"].remove(machine)
        self.records.remove("VM", machine)
        return ""

    def destroy_disk(self, _caller: Caller, disk: str) -> str:
        """Remove a disk that is attached nowhere; VBDs that name it then lead nowhere."""
        record = self.records.get("VDI", disk)
        for ref in record["VBDs"]:
            if self.records.get("VBD", ref)["currently_attached"]:
                raise Failure("VDI_IN_USE", disk, "destroy")
        source = self.records.find("VDI", record["snapshot_of"])
        if source is not None:
            source["snapshots"].remove(disk)
        self.disks.remove(record["uuid"])
        self.records.remove("VDI", disk)
        return ""

    def unplug(self, _caller: Caller, attachment: str) -> str:
        """Take a disk out of a running machine or the control domain."""
        record = self.records.get("VBD", attachment)
        if not record["currently_attached"]:
            raise Failure("DEVICE_ALREADY_DETACHED", attachment)
        record["currently_attached"] = False
        return ""

    def destroy_attachment(self, _caller: Caller, attachment: str) -> str:
        """Remove a VBD that is not plugged."""
        if self.records.get("VBD", attachment)["currently_attached"]:
            raise Failure("OPERATION_NOT_ALLOWED", "VBD still attached")
        self._forget_attachment(attachment)
        return ""

    def _forget_attachment(self, attachment: str) -> None:
        record = self.records.get("VBD", attachment)
        for kind in ("VM", "VDI"):
            owner = self.records.find(kind, record[kind])
            if owner is not None and attachment in owner["VBDs"]:
                owner["VBDs"].remove(attachment)
        self.records.remove("VBD", attachment)

    # -- tasks ----------------------------------------------------------------------------------

    def create_task(self, caller: Caller, label: str, description: str) -> str:
        """Make a task that nothing works on yet."""
        return self.records.add(
            "task", name_label=label, name_description=description, created=now(),
            finished=LONG_AGO, status="pending", progress=0.0, result="", error_info=[],
            other_config={}, current_operations={}, resident_on=NULL, owner=caller["subject"],
        )  # fmt: skip

    def cancel_task(self, caller: Caller, task: str) -> str:
        """Ask for a task's end: whoever works on it ends it, and nobody else does."""
        record = self._own(caller, task, "task.cancel/any")
        if record["status"] in COMPLETED:
            raise Failure("OPERATION_NOT_ALLOWED", "task is not running")
        record["current_operations"] = {task: "cancel"}
        return ""

    def destroy_task(self, caller: Caller, task: str) -> str:
        """Forget a completed task; one that is pending only learns that it is unwanted."""
        record = self._own(caller, task, "task.destroy/any")
        if record["status"] in COMPLETED:
            self.records.remove("task", task)
        else:
            record["current_operations"] = {**record["current_operations"], "task": "destroy"}
        return ""

    def set_task_status(self, caller: Caller, task: str, value: str) -> str:
        """Set a status by hand, as clients may since release 7.0."""
        if value not in {*COMPLETED, "pending", "cancelling"}:
            raise Failure("FIELD_TYPE_ERROR", "status")
        self._own(caller, task, "task.destroy/any")["status"] = value
        return ""

    def end_task(self, task: str, failure: list[str] | None = None) -> None:
        """Complete a task, as the code that worked on it does."""
        record = self.records.find("task", task)
        if record is None or record["status"] in COMPLETED:
            return
        cancelled = "cancel" in record["current_operations"].values()
        record["status"] = "success" if not failure else "cancelled" if cancelled else "failure"
        record["finished"] = now()
        record["error_info"] = list(failure or [])
        record["progress"] = 1.0
        if "destroy" in record["current_operations"].values():
            self.records.remove("task", task)

    def _own(self, caller: Caller, task: str, permission: str) -> Record:
        record = self.records.get("task", task)
        if record["owner"] != caller["subject"] and permission not in caller["permissions"]:
            raise Failure("RBAC_PERMISSION_DENIED", permission, "not a task of this user")
        return record
