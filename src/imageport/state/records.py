"""The records of the catalogue: what images exist where, and where they were published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imageport.model import GenerationRole


@dataclass(frozen=True, slots=True)
class Publication:
    """One place a prepared generation was written to."""

    store: str
    """Location of the vDisk store, without secrets."""
    file_name: str
    at: str
    """UTC, ISO 8601."""
    size_bytes: int
    last_write_ns: int
    image_digest: str
    verified: str = ""
    """The verification level in words."""
    stats: dict[str, Any] = field(default_factory=dict)
    """`imageport.model.TransferStats` of the transfer that wrote it."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of one image at one target; see DESIGN of generations in ARCHITECTURE.md."""

    id: str
    """The catalogue id: what sites pass to each other instead of bytes."""
    image: str
    target: str
    """``aws/eu-central-1/site-b``: cloud, region, target site."""
    role: GenerationRole
    created: str
    """UTC, ISO 8601."""
    size_bytes: int
    source_key: str
    """`VirtualDisk.content_key` of the source this came from, hashed with the options that
    shaped it."""
    image_digest: str
    """SHA-256 over the blocks, the same for every format and cloud."""
    handle: dict[str, str]
    """Cloud ids: ``{"snapshot_id": …, "region": …}``."""
    parent_id: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    """Reports and figures, free of secrets."""
    publications: tuple[Publication, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One cloud resource, recorded as an intent before it is created."""

    id: str
    run: str
    site: str
    kind: str
    """``snapshot``, ``volume``, ``instance``, ``security-group``, ``object``, ``machine-image``."""
    token: str
    """Deterministic name or client token by which the resource is found without its id."""
    created: str
    expires: str
    resource_id: str = ""
    state: str = "intended"
    """``intended`` → ``created`` → ``released`` (handed to the catalogue) or ``deleted``."""
    details: dict[str, str] = field(default_factory=dict)
