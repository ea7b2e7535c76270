"""What a test may turn: delays, limits and faults of the emulated subscription."""

from __future__ import annotations

from dataclasses import dataclass, field

from imageport.sandbox.turnable import Turnable


@dataclass(slots=True)
class Knobs(Turnable):
    """Settings of the running emulator; `turn` changes them while it runs."""

    state_seconds: float = 0.3
    """How long every long-running operation and change of state takes."""
    fault_rate: float = 0.0
    """Share of requests, to ARM and to blobs, that end with a 5xx."""
    seed: int = 0
    control_rps: float = 0.0
    """ARM calls per second, beyond them 429; 0 is no limit."""
    mib_per_second: float = 0.0
    """Page writes per disk, beyond them 503 ServerBusy; 0 is no limit."""
    denied: list[str] = field(default_factory=list)
    """Actions and data actions that the credential lacks, ``Microsoft.Compute/disks/write``."""
    sas_seconds: float = 0.0
    """Longest life of a disk's SAS, whatever was asked for; 0 grants what is asked."""
    clock_skew_seconds: float = 0.0
    """How far the storage servers' clock is behind that of ARM and of clients."""
    missing_sizes: list[str] = field(default_factory=list)
    """Machine sizes that the region has no capacity for."""
    checksum_refused: bool = False
    """The managed disk endpoint refuses transactional checksums."""
    firmware_seconds: float = 600.0
    """How long a booted disk may take to power off by itself."""
    boot_command: list[str] = field(default_factory=list)
    """Program that stands in for firmware and guest; empty runs the real ones."""
    quota_vcpus: int = 100
    """vCPUs that the subscription may use in the region, in all and of each family."""
    operation_timed_out_rate: float = 0.0
    """Share of page writes that end with 500 OperationTimedOut."""
    stuck_upload: int = 0
    """How many revocations of a write access answer 409 before one succeeds."""
    lost_answers: int = 0
    """How many of the next changes are carried out and yet answered with 500."""
    no_capacity: int = 0
    """How many of the next machines cannot be started where they were asked for."""
    failed_operations: int = 0
    """How many of the next long-running operations end as ``Failed``."""
