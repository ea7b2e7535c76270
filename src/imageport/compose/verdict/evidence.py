"""What a verdict is based on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob, Inspection
from imageport.compose.guest_paths import service_binary
from imageport.compose.hives.registry import DISABLED, Registry
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.partition_table import Partition, PartitionTable

_MAX_NAMED = 12
"""More problems of one kind than this are counted, not listed."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The guest as it is (or would be) after composing."""

    registry: Registry
    files: GuestFiles
    boot_files: GuestFiles | None
    table: PartitionTable
    inspection: Inspection
    windows: Partition | None
    """The partition that Windows lies in, of ``table``."""

    def binary_of(self, control_set: str, service: str) -> str:
        """Return the file that a service runs, as a path from the volume's root."""
        return service_binary(self.registry, control_set, service)


@dataclass(slots=True)
class Finding:
    """What one item found: facts that speak for it, problems that speak against it."""

    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return one line: the problems if there are any, else the facts."""
        lines = self.problems or self.facts
        more = len(lines) - _MAX_NAMED
        return "; ".join(lines[:_MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")


class When(StrEnum):
    """Which verdict an item belongs to."""

    BOTH = "both"
    BEFORE_BOOT = "before the boot"
    AFTER_BOOT = "after the boot"
    AT_THE_END = "at the end"
    """Once all else has passed, and ``leave_no_trace`` has taken our own folder away."""


@dataclass(frozen=True, slots=True)
class Check:
    """One item of the verdict; ``clouds`` names those it is for, none named meaning all."""

    name: str
    judge: Callable[[Evidence, EngineJob, CloudTarget], Finding]
    when: When = When.BOTH
    clouds: tuple[str, ...] = ()


class Obstacle(StrEnum):
    """What keeps a service from starting."""

    MISSING = "does not exist"
    DISABLED = "is disabled"
    NO_FILE = "lacks its file"


@dataclass(frozen=True, slots=True)
class Unstartable:
    """A service that cannot start, for people by ``str``."""

    service: str
    obstacle: Obstacle
    path: str = ""
    """Of the file that it lacks."""

    @property
    def reason(self) -> str:
        """Return what is wrong with it, without its name."""
        return f"{self.obstacle} {self.path}".rstrip()

    def __str__(self) -> str:
        """Return what is wrong in words."""
        return f"service {self.service} {self.reason}"


def startable(evidence: Evidence, control_set: str, names: tuple[str, ...]) -> Unstartable | None:
    """Return None when one of the services exists, is not disabled and has its file."""
    for name in names:
        start = evidence.registry.start_of(control_set, name)
        if start is None:
            continue
        path = evidence.binary_of(control_set, name)
        if start == DISABLED:
            return Unstartable(name, Obstacle.DISABLED)
        has_file = evidence.files.exists(path)
        return None if has_file else Unstartable(name, Obstacle.NO_FILE, path)
    return Unstartable(" or ".join(names), Obstacle.MISSING)
