"""Two vDisk stores, a state store and a cloud, all in memory, and a switch that cuts the power."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from imageport.citrix.vdisk_store import VdiskStore
from imageport.clouds.memory import MemoryBehaviour, MemoryCloud
from imageport.clouds.memory_blocks import MemoryAccount
from imageport.formats.opening import open_disk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import BLOCK_BYTES, MIB, GenerationRole
from imageport.progress import Event
from imageport.state.records import Generation, Publication
from imageport.state.store import StateStore
from imageport.storage.byte_file import WritableFile
from imageport.storage.memory import MemoryFolder
from imageport.transfer.block_target import BlockTarget
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.facts import source_facts
from imageport.workflow.place import Workplace
from imageport.workflow.prepare import prepare
from imageport.workflow.publish import publish
from imageport.workflow.upload import upload

TARGET = "memory/here/site-b"
SIZE_BYTES = 6 * MIB
CHOICES = PrepareChoices()


class PowerCutError(BaseException):
    """What ``kill -9`` looks like from inside: no clean-up step works after it either."""


@dataclass
class Power:
    """Dies at its n-th change and stays dead until it is switched on again."""

    lives: int = 1_000_000
    changes: int = 0

    def spend(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if self.changes >= self.lives:
            raise PowerCutError
        self.changes += 1


class PoweredFolder(MemoryFolder):
    """A folder of which every change needs power."""

    def __init__(self, location: str, power: Power) -> None:
        super().__init__(location)
        self._power = power

    def create(self, name: str) -> WritableFile:
        self._power.spend()
        return super().create(name)

    def rename(self, name: str, new_name: str, *, replace: bool = False) -> None:
        self._power.spend()
        super().rename(name, new_name, replace=replace)

    def set_last_write(self, name: str, last_write_ns: int) -> None:
        self._power.spend()
        super().set_last_write(name, last_write_ns)

    def delete(self, name: str) -> None:
        self._power.spend()
        super().delete(name)


def _powered(name: str) -> Callable[..., Any]:
    def call(self: PoweredCloud, *args: Any, **kwargs: Any) -> Any:
        self.power.spend()
        result = getattr(MemoryCloud, name)(self, *args, **kwargs)
        self.power.spend()  # done, and the answer got lost
        return result

    return call


class PoweredCloud(MemoryCloud):
    """A cloud that is reached only with power."""

    power: Power
    make_disk = _powered("make_disk")
    run_engine = _powered("run_engine")
    boot_once = _powered("boot_once")
    snapshot = _powered("snapshot")
    delete_disk = _powered("delete_disk")
    delete_snapshot = _powered("delete_snapshot")

    def upload_target(self, image: str, *, parent: str = "", description: str = "") -> BlockTarget:
        target = super().upload_target(image, parent=parent, description=description)
        commit, abort = target.commit, target.abort

        def powered_commit(digests: Mapping[int, bytes]) -> str:
            self.power.spend()
            reference = commit(digests)
            self.power.spend()  # done, and the answer got lost
            return reference

        def powered_abort() -> None:
            self.power.spend()
            abort()

        target.commit, target.abort = powered_commit, powered_abort  # type: ignore[method-assign]
        return target


@dataclass
class SmallSite:
    """Everything that outlives a process; `place` is what one process opens."""

    power: Power = field(default_factory=Power)
    account: MemoryAccount = field(default_factory=MemoryAccount)
    events: list[Event] = field(default_factory=list)
    behaviour: MemoryBehaviour = field(default_factory=MemoryBehaviour)

    def __post_init__(self) -> None:
        self.state = StateStore(PoweredFolder("state", self.power))
        self.source = VdiskStore(MemoryFolder("source"))
        self.store = VdiskStore(PoweredFolder("store", self.power))
        self._made = 0

    def place(self, run: str = "run-1") -> Workplace:
        cloud = PoweredCloud(
            self.state.ledger, run, site="site-b", account=self.account, behaviour=self.behaviour
        )
        cloud.power = self.power
        return Workplace("site-b", TARGET, run, self.state, cloud, events=self.events.append)

    def write_vdisk(self, *blocks: int, size_bytes: int = SIZE_BYTES) -> None:
        """Make gold.vhdx anew: block n is filled with the n-th number, 0 is a hole."""
        folder = self.source.folder
        folder.delete("gold.vhdx")
        with folder.create("gold.vhdx") as file:
            writer = VhdxWriter(file, size_bytes, block_bytes=MIB)
            for index, number in enumerate(blocks):
                if number:
                    writer.write_at(index * BLOCK_BYTES, bytes([number]) * BLOCK_BYTES)
            writer.finish()

    def uploaded(self, run: str = "run-1", *, keep_parent: bool = True) -> Generation:
        key = source_facts(self.source, "gold").source_key
        place = self.place(run)
        found = upload(place, self.source, "gold", source_key=key, keep_parent=keep_parent)
        return self._dated(found)

    def prepared(self, uploaded: Generation, run: str = "run-1") -> Generation:
        return self._dated(prepare(self.place(run), uploaded.id, CHOICES))

    def published(self, prepared: Generation, run: str = "run-1") -> Publication:
        return publish(self.place(run), prepared.id, self.store, "gold")

    def brought(self, run: str, *, keep_parent: bool = True) -> Generation:
        """The whole way; returns P."""
        prepared = self.prepared(self.uploaded(run, keep_parent=keep_parent), run)
        self.published(prepared, run)
        return prepared

    def killed(self, lives: int, work: Callable[[], object]) -> bool:
        """Do the work with power for so many changes; True when that was too few."""
        self.power.lives, self.power.changes = lives, 0
        try:
            work()
        except PowerCutError:
            return True
        finally:
            self.power.lives = 1_000_000
        return False

    def kept(self, role: GenerationRole) -> list[str]:
        return [item.id for item in self.state.catalogue.list(target=TARGET, role=role)]

    def files(self) -> list[str]:
        return [entry.name for entry in self.store.folder.list()]

    def content(self, file_name: str) -> bytes:
        with open_disk(self.store.folder.open_read(file_name), self.store.folder) as disk:
            return disk.read_at(0, disk.size_bytes)

    def _dated(self, generation: Generation) -> Generation:
        """Times are kept in whole seconds, and a test makes several generations in one."""
        if generation.created < "2100":
            self._made += 1
            created = f"2100-01-01T00:{self._made:02}:00+00:00"
            return self.state.catalogue.update(generation.id, created=created)
        return generation
