"""A Windows guest as a folder: the sample's hives and files, without a disk or a machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import (
    Action,
    Change,
    EngineDisk,
    EngineJob,
    EngineOptions,
    StepNote,
    VerdictItem,
)
from imageport.compose.drivers.driver_packages import find_packages
from imageport.compose.first_boot.vm_agent import find_vm_agent
from imageport.compose.hives.registry import Registry, hive_path, open_registry
from imageport.compose.inspection import inspect
from imageport.compose.installers import find_installers
from imageport.compose.pending_volumes import keep_hives
from imageport.compose.step import Context, Facts
from imageport.compose.steps.order import run_steps
from imageport.compose.verdict.evidence import Evidence
from imageport.compose.verdict.judge import judge
from imageport.compose.volumes.guest_files import PendingFiles
from imageport.compose.volumes.local_files import LocalFiles
from imageport.compose.volumes.partition_table import (
    BASIC_DATA_TYPE,
    ESP_TYPE,
    Partition,
    PartitionTable,
)
from imageport.sandbox.sample import recipe
from imageport.sandbox.sample.driver_package import write_cloud_packages, write_ena_package
from imageport.sandbox.sample.guest_kind import Firmware, GuestKind
from imageport.sandbox.sample.portable_executable import minimal_pe
from imageport.sandbox.sample.windows_files import guest_files
from imageport.sandbox.sample.windows_registry import make_boot_store, make_windows_hives

TABLE = PartitionTable(
    "gpt",
    str(recipe.DISK_GUID),
    (
        Partition(1, ESP_TYPE, str(recipe.ESP_GUID), "EFI", recipe.ESP.first, recipe.ESP.size),
        Partition(
            3,
            BASIC_DATA_TYPE,
            str(recipe.WINDOWS_GUID),
            "Windows",
            recipe.WINDOWS.first,
            recipe.WINDOWS.size,
        ),
    ),
)

MBR_TABLE = PartitionTable(
    "mbr",
    f"mbr:{recipe.MBR_SIGNATURE:08x}",
    tuple(
        Partition(part.number, "0x07", "", "", part.first, part.size, is_active=part.number == 1)
        for part in (recipe.SYSTEM_RESERVED, recipe.WINDOWS_BESIDE_IT)
    ),
)


@dataclass(slots=True)
class FolderGuest:
    """A guest in two folders, and what the engine does to one, step by step."""

    windows: LocalFiles
    esp: LocalFiles
    payload: Path
    scratch: Path
    table: PartitionTable = TABLE
    notes: list[StepNote] = field(default_factory=list)
    _runs: int = field(default=0)

    def bring_packages_of(self, cloud: str) -> None:
        """Fill the payload with a cloud's driver packages, and with nothing else."""
        shutil.rmtree(self.payload)
        self.payload.mkdir()
        write_cloud_packages(cloud, self.payload)

    def hive(self, name: str) -> Path:
        return self.windows.root / hive_path(name)

    def registry(self, stack: ExitStack, *, writable: bool = False) -> Registry:
        self._runs += 1
        folder = self.scratch / f"hives{self._runs}"
        folder.mkdir()
        opened = open_registry(
            self.windows,
            folder,
            writable=writable,
            boot_files=self.esp,
            firmware=self.table.firmware,
        )
        return stack.enter_context(opened)

    def changes(self, options: EngineOptions, *, apply: bool) -> list[Change]:
        with ExitStack() as stack:
            registry = self.registry(stack, writable=True)
            pending, boot = PendingFiles(self.windows), PendingFiles(self.esp)
            packages, refusals = find_packages(self.payload, options.drivers, options.cloud)
            vm_agent, missing = find_vm_agent(self.payload, options.azure_vm_agent)
            installers, wrong = find_installers(self.payload, options)
            assert not refusals + missing + wrong
            inspection = inspect(registry, self.windows, self.table)
            target = TARGETS[options.cloud]
            facts = options, target, inspection, registry, pending, boot, self.payload
            context = Context(*facts, tuple(packages), vm_agent, installers=tuple(installers))
            self.notes = run_steps(context)
            changes = context.recorder.changes
            keep_hives(registry, changes, pending, boot, self.table.firmware)
            if apply:
                pending.apply()
                boot.apply()
            return changes

    def facts(self, registry: Registry, options: EngineOptions | None = None) -> Facts:
        """Return what steps decide by, read from the folders as they are."""
        chosen = options or EngineOptions()
        inspection = inspect(registry, self.windows, self.table)
        target = TARGETS[chosen.cloud]
        found = chosen, target, inspection, registry, self.windows, self.esp, self.payload
        return Facts(*found, installers=tuple(find_installers(self.payload, chosen)[0]))

    def compose(self, options: EngineOptions | None = None) -> list[Change]:
        return self.changes(options or EngineOptions(), apply=True)

    def judge(
        self, action: Action = Action.COMPOSE, options: EngineOptions | None = None
    ) -> dict[str, VerdictItem]:
        job = EngineJob(action, EngineDisk("", ""), options or EngineOptions())
        with ExitStack() as stack:
            registry = self.registry(stack)
            inspection = inspect(registry, self.windows, self.table)
            windows = self.table.partitions[-1]
            evidence = Evidence(registry, self.windows, self.esp, self.table, inspection, windows)
            items = judge(evidence, job, TARGETS[job.options.cloud])
        return {item.name: item for item in items}


@pytest.fixture(scope="session")
def pristine_guests() -> Iterator[Callable[[GuestKind], Path]]:
    """Return a maker of the folders ``windows``, ``esp`` and ``payload``, once for each kind."""
    with tempfile.TemporaryDirectory(prefix="imageport-guest-") as name:

        def of_kind(kind: GuestKind) -> Path:
            root = Path(name) / str(kind)
            if not root.exists():
                _make_pristine(root, kind)
            return root

        yield of_kind


def _make_pristine(root: Path, kind: GuestKind) -> None:
    for file in guest_files(kind):
        place = root / "windows" / file.path
        if file.data is None:
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.data)
    make_windows_hives(root / "windows/Windows/System32/config", kind)
    if kind.firmware is Firmware.UEFI:
        boot, loader = root / "esp/EFI/Microsoft/Boot", root / "esp/EFI/Boot/bootx64.efi"
    else:
        boot, loader = root / "esp/Boot", root / "esp/bootmgr"
    boot.mkdir(parents=True)
    make_boot_store(boot / "BCD", kind)
    loader.parent.mkdir(exist_ok=True)
    loader.write_bytes(minimal_pe("bootx64.efi", "10.0.22621.1", company="Microsoft"))
    write_ena_package(root / "payload/ena")


@pytest.fixture
def new_guest(
    pristine_guests: Callable[[GuestKind], Path], tmp_path: Path
) -> Callable[..., FolderGuest]:
    """Return a maker of guests that may be changed; ``kind`` says what is in them."""
    made = 0

    def make(kind: GuestKind | None = None) -> FolderGuest:
        nonlocal made
        made += 1
        kind = kind or GuestKind()
        return _copied_guest(pristine_guests(kind), tmp_path / f"guest{made}", kind)

    return make


def _copied_guest(pristine: Path, root: Path, kind: GuestKind) -> FolderGuest:
    shutil.copytree(pristine, root)
    scratch = root / "scratch"
    scratch.mkdir()
    windows, esp = LocalFiles(root / "windows"), LocalFiles(root / "esp")
    table = TABLE if kind.firmware is Firmware.UEFI else MBR_TABLE
    return FolderGuest(windows, esp, root / "payload", scratch, table)


@pytest.fixture(scope="session")
def composed_guest(
    pristine_guests: Callable[[GuestKind], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[FolderGuest, list[Change]]]:
    """Return a maker of composed guests, each made once: they are only to be read."""
    made: dict[tuple[GuestKind, EngineOptions], tuple[FolderGuest, list[Change]]] = {}

    def make(
        kind: GuestKind, options: EngineOptions | None = None
    ) -> tuple[FolderGuest, list[Change]]:
        chosen = options or EngineOptions()
        if (kind, chosen) not in made:
            root = tmp_path_factory.mktemp("composed") / "guest"
            guest = _copied_guest(pristine_guests(kind), root, kind)
            made[kind, chosen] = guest, guest.compose(chosen)
        return made[kind, chosen]

    return make


@pytest.fixture
def guest(new_guest: Callable[..., FolderGuest]) -> FolderGuest:
    """A guest that may be changed."""
    return new_guest()


@pytest.fixture
def gcp(guest: FolderGuest) -> FolderGuest:
    """A guest whose payload has every package of Google's machines."""
    write_cloud_packages("gcp", guest.payload / "gcp")
    return guest
