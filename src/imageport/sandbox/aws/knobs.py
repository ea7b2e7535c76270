"""What a test may turn: delays, limits and faults of the emulated account."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imageport.sandbox.turnable import Turnable


@dataclass(slots=True)
class Knobs(Turnable):
    """Settings of the running emulator; `turn` changes them while it runs."""

    throttle_rps: float = 0.0
    """Block writes per second and snapshot; 0 is no limit."""
    control_rps: float = 0.0
    """EC2 calls per second; 0 is no limit."""
    fault_rate: float = 0.0
    """Share of requests that end with a 5xx."""
    seed: int = 0
    unknown_seconds: float = 0.0
    """How long the block servers do not know a snapshot that was just started."""
    complete_seconds: float = 0.3
    """How long a snapshot takes from sealed to ``completed``."""
    state_seconds: float = 0.3
    """How long every change of state of a machine or an attachment takes."""
    minute_seconds: float = 60.0
    """Length of a minute of StartSnapshot's ``Timeout``."""
    firmware_seconds: float = 600.0
    """How long a booted disk may take to power off by itself."""
    empty_pages: bool = False
    """Every other page of a block list is empty and yet not the last, as AWS may do."""
    denied: list[str] = field(default_factory=list)
    """IAM actions that the credentials lack, ``ec2:CreateVolume``."""
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Access key → its identity policy; a key without one may do everything."""
    quota_vcpus: float = 64.0
    """Processors of running standard machines that the account may have (L-1216C47A)."""
    missing_types: list[str] = field(default_factory=list)
    """Machine types that no zone of the region offers."""
    boot_command: list[str] = field(default_factory=list)
    """Program that stands in for firmware and guest; empty runs the real ones."""
