"""What a test may turn: faults of the emulated pool."""

from __future__ import annotations

from dataclasses import dataclass, field

from imageport.sandbox.turnable import Turnable


@dataclass(slots=True)
class Knobs(Turnable):
    """Settings of the running pool; `turn` changes them while it runs."""

    cuts: list[int] = field(default_factory=list)
    """After how many bytes of their bodies the next exports end; then they are whole again."""
    cut_hard: bool = False
    """A cut resets the connection instead of closing it as if all had been sent."""
    failure_before_data: list[str] = field(default_factory=list)
    """Code and parameters with which exports fail after ``200 OK``, before the first byte."""
    failure_at_end: list[str] = field(default_factory=list)
    """Code and parameters with which an export's task fails after its last byte."""
    endless_task: bool = False
    """An export's task stays pending after its last byte."""
    task_seconds: float = 0.0
    """How long after the end of a stream its task becomes ``success``."""
    detach_seconds: float = 0.0
    """How long after its task has ended an export detaches its disk (xen-api #4339)."""
    silent_before_data: bool = False
    """Exports attach the disk and then send nothing, as a stuck storage does."""
    keeps_disk_attached: bool = False
    """A failed export leaves its disk attached to the control domain."""
    ignores_base: bool = False
    """Storage that knows no chains: ``base`` is read and all of the disk is sent."""
    snapshot_failure: list[str] = field(default_factory=list)
    """Code and parameters with which VM.snapshot fails."""
    lost_answers: int = 0
    """How many of the next VM.snapshot calls are carried out and never answered."""
    trailing_bytes: int = 0
    """Bytes that exports send behind the end of the disk."""
    largest_vhd_bytes: int = 2040 * 1024**3
    """ocaml/xapi-consts/constants.ml: max_vhd_size."""
