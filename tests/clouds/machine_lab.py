"""A cloud account whose machines really run, as the suites about machines see it."""

from __future__ import annotations

import contextlib
import logging
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Protocol

import pytest

from imageport.cloud import Cloud, CloudDisk
from imageport.clouds.intents import Intents
from imageport.sandbox.emulator_service import CloudService
from imageport.state.ledger import Ledger
from tests.clouds.cloud_contract import SITE, CloudLab, Killed


class MachineLab(CloudLab):
    """Beside the account: what differs between clouds and the suites need to know."""

    service: CloudService
    name: ClassVar[str]
    """As engine options name the cloud."""
    driver: ClassVar[str]
    """A package that its machines need."""
    disk_kind: ClassVar[str] = "disk"
    reads_disks: ClassVar[bool] = True
    """Whether a disk's blocks can be read without a machine that has it."""
    subnet_setting: ClassVar[str] = "subnet_id"
    engine_needs: ClassVar[tuple[str, ...]]
    """Settings without which no engine machine is made, in the order of the complaint."""
    boot_settings: ClassVar[Mapping[str, object]] = {}
    """Of the boot that is looked at from close by."""
    boot_kinds: ClassVar[frozenset[str]]
    """Of all that is there while a disk boots."""
    boot_ids: ClassVar[tuple[str, ...]]
    """Patterns of the ids of what is made for a boot, in that order; the machine is the last."""
    endings: ClassVar[Mapping[str, str]]
    """What a person may do to a machine: how the outcome begins (a pattern)."""
    engine_denied: ClassVar[str]
    boot_denied: ClassVar[str]
    """Permissions without which the machine cannot be had."""
    bad_day: ClassVar[Mapping[str, object]]
    """The service's own knobs for faults here and there, throughout."""
    secrets: ClassVar[tuple[str, ...]]
    """What signed URLs, tokens and keys have in them."""
    log_level: ClassVar[int] = logging.DEBUG

    @abstractmethod
    def cloud_with(self, run: str, *, ledger: Ledger | None = None, **changes: object) -> Cloud:
        """Return the cloud for one run, with settings of its own."""

    @abstractmethod
    def is_free(self, disk: CloudDisk) -> bool:
        """Tell whether no machine has the disk."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """Return all that is there of jobs and machines, and who has access to what."""

    @abstractmethod
    def end_machine(self, act: str) -> None:
        """``stop`` or ``delete`` the only machine, as a person would."""

    @abstractmethod
    def saved(self, reason: str) -> bytes:
        """Return the object that the reason of an outcome says a screenshot lies at."""

    def consoles(self) -> list[str]:
        """Return what machines wrote to their consoles, where it outlives them."""
        return []

    def started(self) -> set[str]:
        """Return the ids of every machine that was ever switched on."""
        return {str(item["id"]) for item in self.service.machines()}

    def only_disk_is_left(self, disk: CloudDisk) -> bool:
        """Tell whether nothing is left but the disk, free, and the snapshot it came from."""
        left = {item.kind: item.id for item in self.cloud("look").list_ours(SITE)}
        return (
            set(left) == {self.disk_kind, "snapshot"}
            and left[self.disk_kind] == disk.id
            and self.is_free(disk)
            and self.leftovers() == []
            and len(self.state.ledger.open_entries()) == 2
            and not any(item["busy"] for item in self.service.machines())
        )


class ChooseGuest(Protocol):
    """Says what guests do from now on (`tests.clouds.stand_in_guest`)."""

    def __call__(self, mode: str) -> None: ...


class DiesAt(Ledger):
    """The process is killed when it would record an id like ``pattern``, or just after that."""

    def __init__(self, lab: CloudLab, pattern: str, *, after: bool = False) -> None:
        super().__init__(lab.state.folder)
        self._pattern = re.compile(pattern)
        self._after = after

    def record(self, entry_id: str, resource_id: str) -> None:
        dies = self._pattern.match(resource_id)
        if not dies or self._after:
            super().record(entry_id, resource_id)
        if dies:
            raise Killed(resource_id)


@contextlib.contextmanager
def killed() -> Iterator[None]:
    """End in `Killed`, after which no clean-up runs, as after SIGKILL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Intents, "undo_all", lambda *_: [])
        with pytest.raises(Killed):
            yield
