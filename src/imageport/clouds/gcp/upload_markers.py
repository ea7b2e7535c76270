# References: Cloud Storage, "Consistency" (reads, lists and deletions are strongly consistent).
"""Small objects that say: somebody counts on segments that no index names yet.

An upload has one from its beginning until its image is there, and so has the reading of a prepared
disk. As long as there is any, no segment of the site is deleted (`segment_collection`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.names import (
    metadata_of,
    object_id,
    resource_name,
    site_folder,
    tags_of_object,
)
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.intents import Intent
from imageport.clouds.tags import ROLE_UPLOADED
from imageport.clouds.waiting import retried, wait_for
from imageport.errors import ResourceGone

ROLE_UPLOAD: Final = "upload"
"""Of what is written; the image that it becomes has the role ``uploaded``."""
ROLE_READING: Final = "reading"
METADATA_SIZE: Final = "imageport-size"
"""Bytes of the disk: an upload of another size is another upload."""
TURN_SECONDS: Final = 120.0
"""How long a collection may delete; what it does not get done is left to the next."""
LATE_SECONDS: Final = 120.0
"""How late the last request of a collection may arrive: its time-outs, connecting and answering."""


@dataclass(frozen=True, slots=True)
class UploadMarker:
    """An upload as the bucket knows it."""

    name: str
    size_bytes: int
    tags: Mapping[str, str]


def marker_folder(settings: GcpSettings) -> str:
    """Return where the markers of a site lie."""
    return f"{site_folder(settings)}uploads/"


def turn_folder(settings: GcpSettings) -> str:
    """Return where collections say that they are under way."""
    return f"{site_folder(settings)}collecting/"


def marker_key(settings: GcpSettings, name: str) -> str:
    """Return the key of a marker."""
    return f"{marker_folder(settings)}{name}"


def marker_id(settings: GcpSettings, name: str) -> str:
    """Return a marker's id, which is the handle of an upload."""
    return object_id(settings, marker_key(settings, name))


def marker_name(settings: GcpSettings, handle: str) -> str:
    """Return the name in a handle.

    Raises:
        ResourceGone: it is none of this bucket and site.
    """
    folder = marker_id(settings, "")
    name = handle.removeprefix(folder)
    if name == handle or not name or "/" in name:
        raise ResourceGone(f"Bad upload: found '{handle[:200]}', needed one in '{folder}'.")
    return name


def image_of_upload(name: str) -> str:
    """Return the name of the image that an upload becomes."""
    return f"imageport-{ROLE_UPLOADED}-{name.rsplit('-', maxsplit=1)[-1]}"


def write_marker(account: GcpAccount, intent: Intent, name: str, size_bytes: int) -> str:
    """Write a marker of this name unless it is there; return its id.

    Returns when no collection can delete any more what was there at this moment.
    """
    settings = account.settings
    metadata = metadata_of(intent.tags) | {METADATA_SIZE: str(size_bytes)}
    objects, key = Objects(account), marker_key(settings, name)
    retried(lambda: objects.put_once(key, b"", metadata))
    account.record(intent, marker_id(settings, name))
    _wait_for_collections(account, key)
    return marker_id(settings, name)


def find_marker(account: GcpAccount, name: str) -> UploadMarker | None:
    """Return a marker, or None when there is none."""
    key = marker_key(account.settings, name)
    found = retried(lambda: Objects(account).stat(key))
    if found is None:
        return None
    size = found.metadata.get(METADATA_SIZE, "")
    return UploadMarker(name, int(size) if size.isdigit() else -1, tags_of_object(found.metadata))


def delete_marker(account: GcpAccount, name: str) -> None:
    """Delete a marker and close its ledger entry; one that is gone is no error."""
    objects, key = Objects(account), marker_key(account.settings, name)
    retried(lambda: objects.delete(key))
    account.mark(marker_id(account.settings, name), "deleted")


def marker_names(account: GcpAccount) -> list[str]:
    """Return the names of all markers of the site."""
    folder = marker_folder(account.settings)
    found = Objects(account).list(folder)
    return [facts.key.removeprefix(folder) for facts in found]


@contextlib.contextmanager
def segments_kept(account: GcpAccount, image: str) -> Iterator[None]:
    """Keep all segments of the site while the index of an image is being made from them.

    A killed call leaves its marker to the next call, or to the sweep.
    """
    intent = account.intend("object", ROLE_READING, image, name=image)
    name = resource_name(intent)
    write_marker(account, intent, name, 0)
    try:
        yield
    finally:
        delete_marker(account, name)


def _wait_for_collections(account: GcpAccount, key: str) -> None:
    """Wait until no collection is under way that may not have seen the marker.

    Whoever collects writes down that it begins and looks for markers then; whoever uploads writes
    a marker and looks for collections then. So one of them always sees the other. Of a collection
    that was killed only its age tells, by the store's clock alone.
    """
    objects, seconds = Objects(account), TURN_SECONDS + LATE_SECONDS
    began = time.monotonic()

    def check() -> bool | None:
        under_way = list(objects.list(turn_folder(account.settings)))
        if not under_way:
            return True
        marker = objects.stat(key)
        if marker is None:
            raise ResourceGone(f"Cannot go on with '{key}': it was deleted meanwhile.")
        waited = time.monotonic() - began
        for turn in under_way:
            if _seconds_between(turn.updated, marker.updated) + waited <= seconds:
                return None
            objects.delete(turn.key)
        return True

    wait_for(key, check, 2 * seconds, pulse=account.live)


def _seconds_between(turn: datetime | None, marker: datetime | None) -> float:
    """Return at least how old a collection is: of the store's clock, and never too much.

    The marker may be older than this call, then a collection seems younger than it is.
    """
    return (marker - turn).total_seconds() if turn and marker else 0.0
