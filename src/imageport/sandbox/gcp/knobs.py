"""What a test may turn: delays, limits and faults of the emulated project."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imageport.sandbox.turnable import Turnable


@dataclass(slots=True)
class Knobs(Turnable):
    """Settings of the running emulator; `turn` changes them while it runs."""

    state_seconds: float = 0.3
    """How long every operation and change of state takes."""
    fault_rate: float = 0.0
    """Share of requests that end with a 503, half of them after they were carried out."""
    seed: int = 0
    requests_per_second: float = 0.0
    """Requests to Cloud Storage, beyond them 429; 0 is no limit."""
    mib_per_second: float = 0.0
    """How fast the link to Cloud Storage is, both ways together; 0 is no limit."""
    denied: list[str] = field(default_factory=list)
    """Permissions that the service account lacks, ``storage.objects.create``."""
    token_seconds: float = 3600.0
    """Life of the access tokens that are handed out from now on."""
    clock_skew_seconds: float = 0.0
    """How far Google's clock is behind that of clients."""
    lost_answers: int = 0
    """How many of the next changes are carried out and yet answered with 503."""
    corrupted_answers: int = 0
    """How many of the next downloads have one wrong byte."""
    truncated_answers: int = 0
    """How many of the next downloads end in the middle, with the connection."""
    short_persists: int = 0
    """Of how many of the next chunks of a resumable upload only the first 256 KiB are kept."""
    lost_sessions: int = 0
    """How many of the next requests to a resumable upload find that it is gone (410)."""
    preconditions_first: bool = False
    """Whether one who may only create learns of an object that is there as 412 instead of 403."""
    bucket: dict[str, Any] = field(default_factory=dict)
    """Members of the bucket's resource that are not as usual."""
    failed_operations: int = 0
    """How many of the next operations of Compute Engine end with an internal error."""
    compute_requests_per_second: float = 0.0
    """Requests to Compute Engine, beyond them 403; 0 is no limit."""
    missing_machine_types: list[str] = field(default_factory=list)
    """Types of which the zone has none left at the moment."""
    quotas: dict[str, float] = field(default_factory=dict)
    """Limits by Google's name for them, ``N2_CPUS``, that are not as usual."""
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Members, by path, of what exists from the start and is not as usual: subnets, zones, keys…"""
    firmware_seconds: float = 600.0
    """How long a booted disk may take to power off by itself."""
    boot_command: list[str] = field(default_factory=list)
    """Program that stands in for firmware and guest; empty runs the real ones."""
