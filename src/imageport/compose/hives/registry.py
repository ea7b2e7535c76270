"""The guest's hives as one registry: SYSTEM, SOFTWARE and DRIVERS, every control set at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from imageport.compose.hives.base_block import HEADER_BYTES, HiveHeader
from imageport.compose.hives.hive import Hive, Key
from imageport.compose.hives.hive_copies import HiveCopy, HiveDamage, copy_hive
from imageport.compose.hives.registry_value import Value
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import EngineFailed

CONFIG = "Windows/System32/config"
EDITED_HIVES = ("SYSTEM", "SOFTWARE", "DRIVERS")
"""The hives that steps may change; each must be whole before anything is."""
BOOT_STORE_HIVE = "BCD"
"""The name that the boot configuration data, a hive of its own, has in `Registry.hives`."""
UEFI = "uefi"
"""`PartitionTable.firmware` of a disk that boots by UEFI; any other word means BIOS."""
DISABLED = 4
"""A service's Start: it never runs. Lower numbers start it, the lower the earlier."""
_CONTROL_SET = re.compile(r"ControlSet\d{3}", re.IGNORECASE)


def hive_path(name: str) -> str:
    """Return where a hive lies in the guest."""
    return f"{CONFIG}/{name}"


def hive_header(files: GuestFiles, name: str) -> HiveHeader | None:
    """Return a hive's base block facts, None when the guest has no such hive."""
    path = hive_path(name)
    return HiveHeader.parse(files.read(path, HEADER_BYTES)) if files.exists(path) else None


def boot_store_path(firmware: str) -> str:
    """Return where the boot store of a firmware lies on the boot volume.

    A volume may hold one for each, of which the other does nothing.
    """
    return "EFI/Microsoft/Boot/BCD" if firmware == UEFI else "Boot/BCD"


@dataclass(frozen=True, slots=True)
class Registry:
    """Opened hives by name; a hive the guest does not have is missing from ``hives``.

    ``replayed`` are the copies whose guest's file is dirty still: theirs must reach the guest.
    """

    hives: dict[str, Hive]
    replayed: dict[str, HiveCopy] = field(default_factory=dict)

    @property
    def control_sets(self) -> tuple[str, ...]:
        """Return the names of all control sets, sorted."""
        names = [key.name for key in self.hives["SYSTEM"].root.children()]
        return tuple(sorted(name for name in names if _CONTROL_SET.fullmatch(name)))

    @property
    def current_control_set(self) -> str:
        """Return the control set that the next boot takes."""
        # Default is what the loader takes; Current is only what the last boot took.
        chosen = [self.number("SYSTEM", "Select", name) for name in ("Default", "Current")]
        number = next((number for number in chosen if number), 1)
        return f"ControlSet{number:03d}"

    def key(self, hive: str, path: str) -> Key | None:
        """Return a key, None when it or its hive is missing."""
        return self.hives[hive].key(path) if hive in self.hives else None

    def value(self, hive: str, path: str, name: str) -> Value | None:
        """Return a value, None when it, its key or its hive is missing."""
        key = self.key(hive, path)
        return key.value(name) if key else None

    def text(self, hive: str, path: str, name: str) -> str:
        """Return a text value, "" when missing."""
        key = self.key(hive, path)
        return key.text(name) if key else ""

    def number(self, hive: str, path: str, name: str) -> int | None:
        """Return a DWORD value, None when missing or of another type."""
        key = self.key(hive, path)
        return key.number(name) if key else None

    def service(self, control_set: str, name: str) -> Key | None:
        """Return a service's key."""
        return self.key("SYSTEM", service_path(control_set, name))

    def start_of(self, control_set: str, name: str) -> int | None:
        """Return a service's start type, None when there is no such service."""
        return self.number("SYSTEM", service_path(control_set, name), "Start")


def service_path(control_set: str, name: str) -> str:
    """Return the path of a service's key in SYSTEM."""
    return f"{control_set}\\Services\\{name}"


@dataclass(slots=True)
class HiveCopies:
    """Copies of the guest's hives by name, each with what stands against it."""

    copies: dict[str, HiveCopy] = field(default_factory=dict)

    @property
    def damage(self) -> list[HiveDamage]:
        """Return all that stands against changing them."""
        missing = [name for name in ("SYSTEM", "SOFTWARE") if name not in self.copies]
        # DRIVERS is made by Windows when the first driver is added.
        found = [HiveDamage("bad_hive", f"Hive {name} is missing.") for name in missing]
        return found + [item for copy in self.copies.values() for item in copy.damage]

    @property
    def can_be_opened(self) -> bool:
        """Say whether there is a registry to read, up to date or not."""
        return all(item.code != "bad_hive" for item in self.damage)


def copy_hives(
    files: GuestFiles, folder: Path, boot_files: GuestFiles | None, firmware: str = UEFI
) -> HiveCopies:
    """Copy the hives into ``folder``, up to date; the guest's own files stay as they are."""
    found = HiveCopies()
    for name in EDITED_HIVES:
        if files.exists(hive_path(name)):
            found.copies[name] = copy_hive(files, hive_path(name), folder / name)
    store = boot_store_path(firmware)
    if boot_files is not None and boot_files.exists(store):
        found.copies[BOOT_STORE_HIVE] = copy_hive(boot_files, store, folder / BOOT_STORE_HIVE)
    return found


@contextmanager
def open_copies(found: HiveCopies, *, writable: bool) -> Iterator[Registry]:
    """Open the copies as one registry.

    Raises:
        EngineFailed: one is damaged, which a refusal says before, or dirty and to be written.
    """
    fatal = [item for item in found.damage if writable or item.code == "bad_hive"]
    if fatal:
        raise EngineFailed(f"Cannot open the registry: {fatal[0].reason}")
    with ExitStack() as stack:
        copies = found.copies.items()
        yield Registry(
            {n: stack.enter_context(Hive(copy.path, writable=writable)) for n, copy in copies},
            {name: copy for name, copy in copies if copy.replay},
        )


@contextmanager
def open_registry(
    files: GuestFiles,
    folder: Path,
    *,
    writable: bool,
    boot_files: GuestFiles | None = None,
    firmware: str = UEFI,
) -> Iterator[Registry]:
    """Copy the hives into ``folder`` and open them: `copy_hives` and `open_copies` in one."""
    copies = copy_hives(files, folder, boot_files, firmware)
    with open_copies(copies, writable=writable) as registry:
        yield registry
