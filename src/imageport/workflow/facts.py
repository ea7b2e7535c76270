"""Identities without reading a disk: what a stage is asked for, as keys of cache and catalogue."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from imageport.citrix.names import disk_named
from imageport.citrix.vdisk_store import VdiskStore
from imageport.formats.opening import open_disk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.workflow.choices import PrepareChoices


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What tells one content of a vDisk from another; nothing of it needs a full read."""

    image: str
    """The vDisk's name without suffix and version, as PVS shows it."""
    source_key: str
    size_bytes: int


@contextmanager
def opened_source(
    store: VdiskStore, vdisk: str, *, accept_lock: bool
) -> Iterator[tuple[SourceFacts, VirtualDisk]]:
    """Open a vDisk, with the versions it builds on, for reading under the store's lock rules."""
    opened = store.open_vdisk(vdisk, accept_lock=accept_lock)
    with open_disk(opened.file, store.folder, deny_write=opened.deny_write) as disk:
        opened.check_chain(disk)
        key = source_key_of(disk.content_key())
        yield SourceFacts(image_name(vdisk), key, disk.size_bytes), disk


def source_facts(store: VdiskStore, vdisk: str, *, accept_lock: bool = False) -> SourceFacts:
    """Return the identity of a vDisk."""
    with opened_source(store, vdisk, accept_lock=accept_lock) as (facts, _):
        return facts


def image_name(vdisk: str) -> str:
    """Return the name under which the catalogue keeps a vDisk; Windows names fold case.

    All versions of a vDisk are one image there, so that each is a delta to the one before.
    """
    name = PurePosixPath(vdisk.replace("\\", "/")).name
    return disk_named(name)[0].lower()


def source_key_of(content_key: str) -> str:
    """Return what the catalogue knows a content by that nothing has shaped."""
    return hashlib.sha256(content_key.encode()).hexdigest()


def composed_key(source_key: str, options_key_: str) -> str:
    """Return the identity of a vDisk that was composed at the site with certain options."""
    return hashlib.sha256(
        f"composed at the site\0{source_key}\0{options_key_}".encode()
    ).hexdigest()


def options_key(choices: PrepareChoices, payload_sha256: str, engine_id: str) -> str:
    """Return the identity of what prepare would do: same key, same changes.

    Deadlines shape nothing in the image and do not count.
    """
    facts = {
        "options": dataclasses.asdict(choices.engine),
        "payload": payload_sha256,
        "engine": engine_id,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
