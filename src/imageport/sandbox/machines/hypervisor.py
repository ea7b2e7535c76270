"""The machines of an emulated cloud: what runs on them, what they see, how they end.

Knows no cloud: it gets a plan per machine and says when a guest shut down by itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from imageport.sandbox.machines.left_mounts import clear_folder
from imageport.sandbox.machines.machine import (
    BootMachine,
    BootPlan,
    BootSettings,
    IdleMachine,
    Machine,
    ProgramMachine,
)
from imageport.sandbox.machines.sparse_files import holds_anything

PYTHON_SCRIPT = "#!/usr/bin/python3"


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One machine at the moment it is switched on."""

    id: str
    script: str = ""
    """User data that the image's own system would run."""
    root: Path | None = None
    devices: dict[str, Path] = field(default_factory=dict)
    """Name below ``/dev`` → disk, for all that are attached."""
    platform: str = ""
    """Hardware of this machine; empty is what the cloud usually has."""
    problems: tuple[str, ...] = ()
    """Why a guest on this machine would not be alone."""


class Hypervisor:
    """Runs machines as processes of this computer; may be used from several threads."""

    def __init__(self, root: Path, boot: BootSettings, platform: str) -> None:
        self._root = root
        self._boot = boot
        self._platform = platform
        self._lock = threading.RLock()
        self._machines: dict[str, Machine] = {}
        self._ending: dict[str, threading.Thread] = {}
        self._violations: list[dict[str, object]] = []
        self.on_shutdown: Callable[[str], None] = lambda _machine_id: None
        """Called when a guest shut its machine down."""
        clear_folder(root)

    def power_on(self, plan: MachinePlan) -> None:
        """Start what this machine runs."""
        folder = self._root / plan.id
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            machine = self._make(plan, folder)
            self._machines[plan.id] = machine
            for name, disk in plan.devices.items():
                machine.devices.plug(name, disk)
        # What it takes to start (a first look at KVM, for one) must not hold up the API.
        threading.Thread(target=machine.start, name=f"start-{plan.id}", daemon=True).start()

    def power_off(self, machine_id: str) -> None:
        """Begin to end every process of a machine, see `is_off`; one that is off is no error."""
        with self._lock:
            machine = self._machines.get(machine_id)
            if machine is not None:
                thread = threading.Thread(target=machine.end, daemon=True)
                self._ending[machine_id] = thread
                thread.start()

    def is_off(self, machine_id: str) -> bool:
        """Tell whether `power_off` is done."""
        with self._lock:
            thread = self._ending.get(machine_id)
        return thread is None or not thread.is_alive()

    def plug(self, machine_id: str, device: str, disk: Path) -> None:
        """Show a disk to a machine that is on, as ``/dev/DEVICE``."""
        with self._lock:
            if machine_id in self._machines:
                self._machines[machine_id].devices.plug(device, disk)

    def unplug(self, machine_id: str, device: str) -> None:
        """Take a disk away."""
        with self._lock:
            if machine_id in self._machines:
                self._machines[machine_id].devices.unplug(device)

    def console(self, machine_id: str) -> str:
        """Return what the machine wrote to its serial port since it was switched on last."""
        with self._lock:
            machine = self._machines.get(machine_id)
        return "" if machine is None else machine.console()

    def forget(self, machine_id: str) -> None:
        """Remove the files of a terminated machine; its console text stays, as in a cloud."""
        with self._lock:
            machine = self._machines.get(machine_id)
        if machine is not None:
            machine.clear()

    def stop_all(self) -> None:
        """End all machines, at the same time."""
        with self._lock:
            machines = list(self._machines.values())
        threads = [threading.Thread(target=machine.end) for machine in machines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def facts(self) -> list[dict[str, object]]:
        """Return id, kind and whether it does anything, of every machine ever switched on."""
        with self._lock:
            machines = list(self._machines.items())
        return [
            {"id": machine_id, "kind": type(item).__name__, "busy": item.is_busy}
            for machine_id, item in machines
        ]

    def violations(self) -> list[dict[str, object]]:
        """Return the guests that were refused because they would not have been isolated."""
        with self._lock:
            return list(self._violations)

    def _make(self, plan: MachinePlan, folder: Path) -> Machine:
        def ended() -> None:
            self.on_shutdown(plan.id)

        if plan.script.startswith(PYTHON_SCRIPT):
            return ProgramMachine(plan.id, folder, plan.script, ended)
        if plan.script or plan.root is None or not holds_anything(plan.root):
            return IdleMachine(plan.id, folder)
        if plan.problems:
            return self._refuse(plan, folder)
        boot = BootPlan(plan.root, self._boot, plan.platform or self._platform)
        return BootMachine(plan.id, folder, boot, ended)

    def _refuse(self, plan: MachinePlan, folder: Path) -> Machine:
        """Leave the guest off: booting it in this network is what must never happen."""
        self._violations.append({"machine": plan.id, "problems": list(plan.problems)})
        (self._root / "violations.json").write_text(json.dumps(self._violations, indent=1))
        machine = IdleMachine(plan.id, folder)
        machine.say(f"imageport sandbox: guest not started: {'; '.join(plan.problems)}")
        return machine
