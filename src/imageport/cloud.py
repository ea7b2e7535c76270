"""The interface of a target cloud: where blocks go, where the engine runs, what boots once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from imageport.compose.contract import EngineJob, EngineReport
from imageport.formats.virtual_disk import VirtualDisk
from imageport.progress import EventSink, silent
from imageport.transfer.block_target import BlockTarget

Cancelled = Callable[[], bool]
"""Asked at safe points; True means the operator wants the run to end."""


def never() -> bool:
    """Answer that nobody cancelled."""
    return False


@dataclass(frozen=True, slots=True)
class CloudDisk:
    """A disk in the cloud that the engine edits and the boot machine boots."""

    id: str
    size_bytes: int
    disk_guid: str
    """GPT disk GUID, or ``mbr:`` and a signature.

    Whoever opens the disk compares it before a byte is written.
    """


@dataclass(frozen=True, slots=True)
class BootOutcome:
    """How the one boot ended."""

    stopped_by_itself: bool
    """True when the guest shut down, which is how it says that it is finished."""
    seconds: float
    console_text: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CloudResource:
    """Something in the cloud that carries our tags."""

    kind: str
    id: str
    tags: dict[str, str] = field(default_factory=dict)
    note: str = field(default="", compare=False)
    """What is worth telling about its deletion."""

    def __str__(self) -> str:
        return f"{self.kind} {self.id}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True, slots=True)
class PermissionGap:
    """One action the credentials may not do, and which stage needs it."""

    action: str
    needed_for: str
    found: str
    optional: bool = False
    """A run works without it; preflight looks at less."""


@dataclass(frozen=True, slots=True)
class PlaceProblem:
    """One thing about the account, region or settings that would stop this image there."""

    subject: str
    """What is wrong: a setting, a machine type, a quota, the disk's size."""
    found: str
    needed: str
    hint: str = ""

    def __str__(self) -> str:
        return f"Bad {self.subject}: found {self.found}, needed {self.needed}."


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of the estimate, in US dollars by a dated price table."""

    item: str
    quantity: float
    unit: str
    usd: float


class Cloud(ABC):
    """One account, region and network in one cloud, for one run.

    Every ``make`` or ``run`` method records an intent in the ledger before it creates anything,
    tags what it creates with site, run, role and expiry, and removes on any error what it made
    itself. All may be called again after a crash with the same arguments: deterministic tokens
    find what exists.
    """

    name: str
    scope: str
    """Account's cloud and region, ``aws/eu-central-1``: every token in the ledger starts with it,
    so that a sweep of one region never judges what lies in another."""

    @abstractmethod
    def check_permissions(self) -> list[PermissionGap]:
        """Try every action that a run needs, changing nothing; empty when all is granted."""

    @abstractmethod
    def check_place(self, image: str, size_bytes: int) -> list[PlaceProblem]:
        """Look for all that would stop this image later: names, sizes, region, machines, quotas.

        Changes nothing. What the credentials may not look at is no problem of the place
        (`check_permissions` names it); an unreachable cloud raises.
        """

    @abstractmethod
    def upload_target(self, image: str, *, parent: str = "", description: str = "") -> BlockTarget:
        """Return the target for generation U; ``parent`` is the reference of an earlier U."""

    @abstractmethod
    def exists(self, reference: str) -> bool:
        """Tell whether a committed upload or snapshot is still there and usable."""

    def fits_as_parent(self, reference: str) -> bool:
        """Tell whether a child of this upload comes out as the settings want it."""
        return self.exists(reference)

    @abstractmethod
    def make_disk(self, reference: str, disk_guid: str) -> CloudDisk:
        """Make a working disk from a snapshot."""

    @abstractmethod
    def run_engine(
        self,
        disk: CloudDisk,
        job: EngineJob,
        payload: Path | None = None,
        *,
        deadline_seconds: float,
        events: EventSink = silent,
        cancelled: Cancelled = never,
    ) -> EngineReport:
        """Run the compositing engine on the disk in an on-demand machine and return its report.

        ``payload`` is a zip of the operator's files. `EngineFailed` when no report arrived.
        """

    @abstractmethod
    def boot_once(
        self,
        disk: CloudDisk,
        *,
        deadline_seconds: float,
        events: EventSink = silent,
        cancelled: Cancelled = never,
    ) -> BootOutcome:
        """Boot the disk itself, by UEFI and isolated, until it shuts down; detach it then."""

    @abstractmethod
    def snapshot(self, disk: CloudDisk, name: str) -> str:
        """Make a snapshot of the disk, wait until it is complete, return its reference."""

    @abstractmethod
    def open_snapshot(self, reference: str) -> VirtualDisk:
        """Open a snapshot for reading by blocks."""

    @abstractmethod
    def delete_disk(self, disk: CloudDisk) -> None:
        """Delete a working disk; one that is gone is no error."""

    @abstractmethod
    def delete_snapshot(self, reference: str) -> None:
        """Delete a snapshot; one that is gone is no error."""

    @abstractmethod
    def list_ours(self, site: str) -> list[CloudResource]:
        """Return everything in this account and region that carries the tags of ``site``."""

    @abstractmethod
    def delete_resource(self, resource: CloudResource) -> str:
        """Delete whatever `list_ours` found; for the sweep only.

        Returns what is worth telling about it, mostly nothing.
        """

    @abstractmethod
    def estimate(self, data_bytes: int, size_bytes: int) -> list[CostLine]:
        """Estimate what a run costs, before anything is created."""

    def close(self) -> None:
        """Close all connections; may be called twice."""
        return
