"""A hypervisor, an export folder and a state store, all in memory, for the export stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imageport.citrix.vdisk_store import VdiskStore
from imageport.formats.opening import open_disk
from imageport.hypervisors.memory import MemoryHypervisor
from imageport.hypervisors.memory_pool import MemoryPool, MemoryVm
from imageport.model import MIB
from imageport.progress import Event
from imageport.state.records import Generation
from imageport.state.store import StateStore
from imageport.workflow.export import export
from imageport.workflow.master import ExportPlace, WantedMaster, export_target
from tests.workflow.small_site import Power, PowerCutError, PoweredFolder

VM = "/dc/vm/masters/win11"
SIZE_BYTES = 8 * MIB


@dataclass
class ExportSite:
    """Everything that outlives a process; `place` is what one process opens."""

    pool: MemoryPool = field(default_factory=MemoryPool)
    power: Power = field(default_factory=Power)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = StateStore(PoweredFolder("state", self.power))
        self.store = VdiskStore(PoweredFolder("exports", self.power))
        self.machine: MemoryVm = self.pool.add(VM, size_bytes=SIZE_BYTES)
        self.write(0, b"\x01" * MIB)
        self.write(3 * MIB, b"\x02" * MIB)

    @property
    def disk(self) -> Any:
        return self.machine.disks[0]

    def write(self, offset: int, data: bytes) -> None:
        self.machine.disks[0].write_at(offset, data)

    def place(self, run: str = "run-1", **changes: Any) -> ExportPlace:
        hypervisor = MemoryHypervisor(self.pool)
        return ExportPlace(
            "onprem", export_target("onprem"), run, self.state, hypervisor, self.store,
            events=self.events.append, **changes,
        )  # fmt: skip

    def exported(self, run: str = "run-1", **wanted: Any) -> Generation:
        return export(self.place(run), WantedMaster(VM, **wanted))

    def killed(self, lives: int, run: str = "run-1", **wanted: Any) -> bool:
        """Export with power for so many changes; True when that was too few."""
        self.power.lives, self.power.changes = lives, 0
        try:
            self.exported(run, **wanted)
        except PowerCutError:
            return True
        finally:
            self.power.lives = 1_000_000
        return False

    def content(self, generation: Generation) -> bytes:
        name = generation.handle["file_name"]
        with open_disk(self.store.folder.open_read(name), self.store.folder) as disk:
            return disk.read_at(0, disk.size_bytes)

    def master(self) -> bytes:
        return bytes(self.disk.read_at(0, SIZE_BYTES))

    def files(self) -> list[str]:
        return [entry.name for entry in self.store.folder.list()]

    def notes(self) -> str:
        return "\n".join(event.note for event in self.events if event.note)

    def left_behind(self) -> dict[str, Any]:
        """What must not outlive a run: snapshots and exports of ours, half files, journals."""
        state = self.state.folder
        found = {
            "snapshots": [one.name for one, _ in self.machine.snapshots.values() if one.is_ours],
            "exports": list(self.pool.exports),
            "halves": [left.part_name for left in self.store.leftovers()],
            "journals": [e.name for e in state.list("journals")] if state.stat("journals") else [],
        }
        return {name: items for name, items in found.items() if items}
