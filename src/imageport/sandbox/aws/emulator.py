"""What all parts of the emulated account share; one per process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from imageport.errors import EngineFailed
from imageport.sandbox.aws.call_record import CallRecord, Scope
from imageport.sandbox.aws.iam_policy import Check, is_allowed
from imageport.sandbox.aws.knobs import Knobs
from imageport.sandbox.aws.snapshot_store import SnapshotStore
from imageport.sandbox.faults import Chance
from imageport.sandbox.machines.hypervisor import Hypervisor
from imageport.sandbox.machines.left_mounts import clear_folder

ACCOUNT = "123456789012"
"""The account that moto gives every caller."""


def device_name(volume_id: str) -> str:
    """Return the name below ``/dev`` that udev gives a volume: its id is the NVMe serial.

    Source: Amazon EC2 User Guide, "Amazon EBS volumes and NVMe".
    """
    return f"disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"


class Emulator:
    """Disks, machines, delays and faults behind the emulated API."""

    def __init__(self, root: Path, knobs: Knobs) -> None:
        self.root = root
        self.knobs = knobs
        self.chance = Chance(knobs.seed)
        self.calls = CallRecord()
        self.snapshots = SnapshotStore(root / "snapshots", knobs)
        self.volumes = root / "volumes"
        clear_folder(self.volumes)  # volumes and machines end with the emulator; snapshots stay
        self.hypervisor = Hypervisor(root / "machines", knobs, "aws")
        self.lock = threading.RLock()
        self.volume_states: dict[str, str] = {}
        """``creating``, ``available``, ``error`` of a volume that no machine holds."""
        self.lineage: dict[str, str] = {}
        """Volume → the snapshot that its next snapshot is an increment of."""

    def volume_path(self, volume_id: str) -> Path:
        """Return the file behind a volume."""
        return self.volumes / f"{volume_id}.raw"

    def tags_of(self, region: str) -> Callable[[str], Mapping[str, str]]:
        """Return what tells the tags of a resource of a region by its id."""
        from moto.ec2.models import ec2_backends  # noqa: PLC0415 - after moto's settings

        def tags_of(resource_id: str) -> Mapping[str, str]:
            return dict(ec2_backends[ACCOUNT][region].tags.get(resource_id, {}))

        return tags_of

    def denied_action(self, scope: Scope, checks: Iterable[Check]) -> str:
        """Return the first action that the knobs or the caller's policy do not allow, or ""."""
        policy = self.knobs.policies.get(scope.access_key, {})
        for asked in checks:
            # Nobody can be denied to ask who they are.
            judged = bool(policy) and asked.action != "sts:GetCallerIdentity"
            if asked.action in self.knobs.denied or (judged and not is_allowed(policy, asked)):
                return asked.action
        return ""

    def later(self, call: Callable[[], None], seconds: float | None = None) -> None:
        """Run ``call`` after a change of state takes its time, under the lock."""

        def run() -> None:
            with self.lock:
                call()

        timer = threading.Timer(self.knobs.state_seconds if seconds is None else seconds, run)
        timer.daemon = True
        timer.start()


_running: list[Emulator] = []


def start_emulator(emulator: Emulator) -> None:
    """Make ``emulator`` the one of this process."""
    _running[:] = [emulator]


def current() -> Emulator:
    """Return the emulator of this process."""
    if not _running:
        raise EngineFailed("Cannot answer: no emulator was started in this process.")
    return _running[0]
