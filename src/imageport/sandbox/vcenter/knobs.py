"""What a test may turn at the embedded vCenter; the program's own names and meanings."""

from __future__ import annotations

from dataclasses import dataclass, field

from imageport.sandbox.turnable import Turnable


@dataclass(slots=True)
class Knobs(Turnable):
    """Settings of the running vCenter; `turn` changes them while it runs."""

    lease_timeout_seconds: float = 300.0
    """How long an export lease lives without a report of progress."""
    lease_ready_seconds: float = 0.1
    """How long it is ``initializing``."""
    star_host: bool = True
    """The URLs of leases name the host as ``*``: the one that the client connected to."""
    bytes_per_second: float = 0.0
    """Of every download; 0 is no limit."""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes each of the next downloads is cut off; -1 leaves one whole."""
    corrupt: list[int] = field(default_factory=list)
    """Which byte of each of the next downloads is changed on the wire; -1 for none."""
    manifest: str = ""
    """What is wrong in manifests: ``checksum``, ``size``, or ``missing`` entries."""
    drop: bool = False
    """Every connection is closed without an answer, also those that are sending."""
    denied: list[str] = field(default_factory=list)
    """Privileges that the user lacks, ``VApp.Export``."""
    areas_per_answer: int = 4
    """The most areas in one answer of QueryChangedDiskAreas."""
