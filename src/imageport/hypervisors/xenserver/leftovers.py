# References: xapi-project/xen-api, ocaml/xapi: attach_helpers ("task_id" in a VBD's other_config
# names the task it was plugged for), xapi_task (destroy of a pending task only marks it).
"""What exports leave behind when they fail: tasks, and disks attached to a control domain."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection
from typing import Final

from imageport.errors import HypervisorError, HypervisorRefused, HypervisorUnreachable, VmMissing
from imageport.hypervisor import OWN_PREFIX, FrozenDisk, Vm, VmSnapshot
from imageport.hypervisors.xenserver.connection import PoolConnection
from imageport.hypervisors.xenserver.inventory import Inventory
from imageport.hypervisors.xenserver.records import ApiRecord

TASK_KEY: Final = "task_id"
"""In a VBD's ``other_config``: the task whose work it was plugged for."""
PENDING: Final = {"pending", "cancelling"}
_FAILED: Final = {"failure", "cancelled"}
CANCEL_SECONDS: Final = 30.0
"""A cancelled export ends at its next write; then the disk is detached, which takes seconds."""
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0


def task_label(vm_id: str, snapshot_id: str = "") -> str:
    """Return the name of a snapshot's exports; without one, how those of a machine begin.

    The snapshot tells whose export it is: each run takes its own, under its image's lease.
    """
    return f"{OWN_PREFIX}export {vm_id} {snapshot_id}"


class Leftovers:
    """Knows which exports of this connection are under way, and ends what is left of others."""

    def __init__(self, connection: PoolConnection, inventory: Inventory) -> None:
        self._connection = connection
        self._inventory = inventory
        self._under_way: set[str] = set()
        self._lock = threading.Lock()

    def begin(self, frozen: FrozenDisk, description: str) -> str:
        """Make a task for an export and return its reference."""
        doing = f"make a task for '{frozen.location}'"
        label = task_label(frozen.vm.id, frozen.snapshot.id)
        task = self._connection.text(
            "task.create", label, description, doing=doing, repeatable=False
        )
        with self._lock:
            self._under_way.add(task)
        return task

    def forget(self, task: str) -> None:
        """Destroy a completed task."""
        try:
            self._connection.call("task.destroy", task, doing="destroy a task")
        except VmMissing:
            pass  # xapi forgets completed tasks by itself
        finally:
            self._is_over(task)

    def give_up(self, task: str, vdis: list[str], *, is_worked_on: bool) -> None:
        """End an export that did not reach its end: its task, and the disks it attached.

        Raises nothing: whoever comes next finds what could not be ended.
        """
        try:
            with contextlib.suppress(HypervisorError):
                self._end(task, CANCEL_SECONDS if is_worked_on else 0)
            with contextlib.suppress(HypervisorError):
                for vdi in vdis:
                    self.detach(vdi, of_task=task)
        finally:
            self._is_over(task)

    def tidy_up(self, vm: Vm) -> list[str]:
        """Forget failed exports of a machine, detach their disks; say what was ended.

        An export that is pending may be another live run's: of another image of this machine, or
        at another site. It ends with its connection, or with its snapshot: `end_exports`.
        """
        machine = self._inventory.record("VM", self._inventory.machine(vm))
        failed = self._tasks(task_label(vm.id), _FAILED)
        ended = [
            f"ended an unfinished export of '{vm.location}'"
            for task in failed
            if self._is_ended(task, 0)
        ]
        for snapshot in self._inventory.existing("VM", machine.texts("snapshots")).values():
            name = snapshot.text("name_label")
            for disk in self._inventory.disks_of(snapshot):
                count = sum(self.detach(disk.vdi, of_task=task) for task in failed)
                count += self.detach(disk.vdi) if name.startswith(OWN_PREFIX) else 0
                if count:
                    ended.append(f"detached disk {disk.vdi_uuid} of snapshot '{name}' from a host")
        return ended

    def end_exports(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """End all exports of a snapshot that nobody needs any more, but those of this connection.

        Raises nothing for those that another user began: they end with their connections.
        """
        for task in self._tasks(task_label(vm.id, snapshot.id)):
            self._is_ended(task, CANCEL_SECONDS)

    def detach(self, vdi: str, *, of_task: str = "") -> int:
        """Detach a disk from control domains where nothing reads it; return from how many.

        With ``of_task``, only what that task attached; without, whatever task attached it and has
        ended. What cannot be detached stays: xapi may be doing it itself at this moment, and
        whoever destroys the disk waits, and says that it is in use.
        """
        count = 0
        for ref in self._attachments(vdi):
            try:
                vbd = self._inventory.record("VBD", ref)
                task = vbd.mapping("other_config").get(TASK_KEY, "")
                wanted = task == of_task if of_task else not self._is_pending(task)
                if not wanted or not self.is_control_domain(vbd.text("VM")):
                    continue
                if vbd.flag("currently_attached"):
                    self._connection.call("VBD.unplug", ref, doing="detach a disk from a host")
                self._connection.call("VBD.destroy", ref, doing="detach a disk from a host")
            except (VmMissing, HypervisorRefused):
                continue
            count += 1
        return count

    def is_control_domain(self, machine: str) -> bool:
        """Tell whether a reference is a host's own domain; one that is gone is none."""
        try:
            return self._connection.flag("VM.get_is_control_domain", machine)
        except VmMissing:
            return False

    def task(self, task: str) -> ApiRecord:
        """Return a task's record; `VmMissing` when it is gone."""
        return self._inventory.record("task", task)

    def wait(self, task: str, seconds: float) -> ApiRecord:
        """Return a task's record as soon as it is completed, or as it is after so long.

        A pool that cannot be asked for a moment is asked again: hours of export hang on the answer.
        """
        end, pause = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS
        while True:
            try:
                record = self.task(task)
                if record.text("status") not in PENDING or time.monotonic() >= end:
                    return record
            except HypervisorUnreachable:
                if time.monotonic() >= end:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    def _end(self, task: str, seconds: float) -> None:
        """Cancel a task, wait for whoever works on it, and destroy it.

        A task that nobody works on stays pending whatever is asked of it: it is completed by hand.
        """
        try:
            if self.task(task).text("status") in PENDING:
                self._cancel(task, seconds)
            self._connection.call("task.destroy", task, doing="destroy a task")
        except VmMissing:
            pass  # gone by itself

    def _cancel(self, task: str, seconds: float) -> None:
        try:
            self._connection.call("task.cancel", task, doing="cancel a task")
        except HypervisorError as error:
            if error.fields.get("xapi_code") != "OPERATION_NOT_ALLOWED":
                raise  # else it has just ended
        if self.wait(task, seconds).text("status") in PENDING:
            self._connection.call("task.set_status", task, "cancelled", doing="end a task")

    def _is_ended(self, task: str, seconds: float) -> bool:
        """End a task; False where that is refused, since another user began it."""
        try:
            self._end(task, seconds)
        except HypervisorRefused:
            return False
        return True

    def _tasks(self, label: str, states: Collection[str] = ()) -> list[str]:
        """Return the tasks whose names begin so, but those of this connection."""
        with self._lock:
            under_way = set(self._under_way)
        return [
            ref
            for ref, record in self._connection.records("task", doing="list tasks").items()
            if record.text("name_label").startswith(label)
            and ref not in under_way
            and (not states or record.text("status") in states)
        ]

    def _attachments(self, vdi: str) -> list[str]:
        try:
            return self._connection.texts("VDI.get_VBDs", vdi)
        except VmMissing:
            return []

    def _is_pending(self, task: str) -> bool:
        if not task.startswith("OpaqueRef:"):
            return False
        try:
            return self.task(task).text("status") in PENDING
        except VmMissing:
            return False

    def _is_over(self, task: str) -> None:
        with self._lock:
            self._under_way.discard(task)
