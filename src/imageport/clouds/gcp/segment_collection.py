# References: Cloud Storage, "Consistency"; "Object holds" are not used: the markers do their work.
"""Deleting segments that no image of the site needs any more.

Only what an index names is needed, and as long as anybody has a marker nothing is deleted at all
(`upload_markers`). That keeps the rule short enough to be right: no counting of references, no
ages, no clocks. What is left, because somebody was uploading, time was up or a collection was
killed, is written down, so that the sweep goes on with it.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.digest_set import DigestSet
from imageport.clouds.gcp.error_mapping import CHANGED
from imageport.clouds.gcp.images import describe_image
from imageport.clouds.gcp.names import image_id, site_folder, temporary_folder
from imageport.clouds.gcp.objects import ObjectFacts, Objects
from imageport.clouds.gcp.segment_index import index_folder, index_key, read_index
from imageport.clouds.gcp.segments import prepared_folder, segment_key
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.stored_segments import each_segment
from imageport.clouds.gcp.upload_markers import (
    TURN_SECONDS,
    delete_marker,
    image_of_upload,
    marker_name,
    marker_names,
    turn_folder,
)
from imageport.clouds.waiting import retried
from imageport.errors import CloudRefused
from imageport.transfer.digest_table import DIGEST_BYTES

UNCOLLECTED: Final = "uncollected"
BATCH: Final = 256
"""Segments deleted between two looks at the time that is left."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did."""

    deleted: int = 0
    deleted_bytes: int = 0
    kept: int = 0
    """Segments that images of the site need."""
    left: int = 0
    """Segments that nobody needs and that stayed, because time was up."""
    uploads: int = 0
    """Uploads under way; if there are any, nothing was deleted."""

    @property
    def done(self) -> bool:
        """Tell whether nothing is left for another collection."""
        return not self.uploads and not self.left

    def __str__(self) -> str:
        if self.uploads:
            return f"no segment deleted: {self.uploads} uploads are under way"
        left = f", {self.left} left to the next time" if self.left else ""
        return (
            f"{self.deleted} segments of no image deleted, {self.deleted_bytes:,} bytes{left}; "
            f"{self.kept} are needed"
        )


def collect_segments(account: GcpAccount, *, leaving: str = "") -> Collected:
    """Delete the site's segments that no index names, unless somebody is uploading.

    Args:
        account: Of the run; its settings name bucket and site.
        leaving: Name of the marker of an upload that ends: it keeps nothing any more.

    Raises:
        StateError: an index is damaged: what it names is not known, so nothing is deleted.
    """
    objects, mark = Objects(account), uncollected_key(account.settings)
    generation = retried(lambda: objects.put(mark, b"")).generation
    with _turn(account) as deadline:
        uploads = [name for name in marker_names(account) if name != leaving]
        found = Collected(uploads=len(uploads)) if uploads else _collect(account, deadline)
    if found.done:
        _take_back(objects, mark, generation)
    return found


def uncollected_key(settings: GcpSettings) -> str:
    """Return what lies in the bucket while segments that nobody needs may be left."""
    return f"{site_folder(settings)}{UNCOLLECTED}/segments"


def forget_image(account: GcpAccount, image: str) -> Collected:
    """Delete what the bucket holds of an image that is gone: index, its own blocks, segments."""
    objects, settings = Objects(account), account.settings
    retried(lambda: objects.delete(index_key(settings, image)))
    _delete_folder(account, prepared_folder(settings, image))
    return collect_segments(account)


def discard_upload(account: GcpAccount, handle: str) -> Collected:
    """Delete all that an upload left in the bucket, but nothing of an image that it became.

    The marker goes last: killed before, whoever comes next finds it and does it again.

    Raises:
        ResourceGone: ``handle`` is no upload of this bucket and site.
    """
    settings = account.settings
    name = marker_name(settings, handle)
    image = image_of_upload(name)
    delete_archive(account, name)
    if describe_image(account, image_id(settings, image)) is None:
        retried(lambda: Objects(account).delete(index_key(settings, image)))
    collected = collect_segments(account, leaving=name)
    delete_marker(account, name)
    return collected


def archives_folder(settings: GcpSettings) -> str:
    """Return where the uploads of a site make their archives."""
    return f"{temporary_folder(settings)}archives/"


def archive_folder(settings: GcpSettings, name: str) -> str:
    """Return where an upload's archive and its parts lie, with a slash at its end."""
    return f"{archives_folder(settings)}{name}/"


def delete_archive(account: GcpAccount, name: str) -> None:
    """Delete an upload's archive and its parts."""
    _delete_folder(account, archive_folder(account.settings, name))


class _Unneeded:
    """The segments that no index names, in 40 bytes each."""

    def __init__(self, account: GcpAccount) -> None:
        self.kept = 0
        self._needed = _needed(account)
        self._digests = bytearray()
        self._sizes = array("Q")
        self._lock = threading.Lock()
        each_segment(account, self._take)

    def __len__(self) -> int:
        return len(self._sizes)

    def between(self, start: int, end: int) -> tuple[list[bytes], int]:
        """Return the digests at these places, and how many bytes the segments have together."""
        places = range(start, min(end, len(self)))
        digests = [
            bytes(self._digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]) for at in places
        ]
        return digests, sum(self._sizes[start:end])

    def _take(self, digest: bytes, facts: ObjectFacts) -> None:
        needed = digest in self._needed
        with self._lock:
            if needed:
                self.kept += 1
            else:
                self._digests += digest
                self._sizes.append(facts.size_bytes)


def _collect(account: GcpAccount, deadline: float) -> Collected:
    doomed = _Unneeded(account)
    deleted = deleted_bytes = 0
    objects = Objects(account)
    while deleted < len(doomed) and time.monotonic() < deadline:
        digests, size_bytes = doomed.between(deleted, deleted + BATCH)
        objects.delete_many([segment_key(account.settings, digest) for digest in digests])
        deleted += len(digests)
        deleted_bytes += size_bytes
        account.live()
    return Collected(deleted, deleted_bytes, doomed.kept, len(doomed) - deleted)


def _needed(account: GcpAccount) -> DigestSet:
    """Return the digests of all indexes of the site; an archive that was streamed needs none."""
    folder = index_folder(account.settings)
    needed = DigestSet(())
    for facts in Objects(account).list(folder):
        index = read_index(account, facts.key.removeprefix(folder))
        if index is not None and index.has_segments:
            needed = DigestSet(chain(needed, (digest for _index, digest in index.blocks())))
    return needed


@contextlib.contextmanager
def _turn(account: GcpAccount) -> Iterator[float]:
    """Say that a collection is under way; the yielded time is when it must not delete any more."""
    objects = Objects(account)
    key = f"{turn_folder(account.settings)}{secrets.token_hex(8)}"
    deadline = time.monotonic() + TURN_SECONDS
    retried(lambda: objects.put(key, b"", {}))
    try:
        yield deadline
    finally:
        retried(lambda: objects.delete(key))


def _take_back(objects: Objects, mark: str, generation: int) -> None:
    """Delete the mark of a collection, unless another has begun since, which then sees to it."""
    try:
        retried(lambda: objects.delete(mark, generation=generation))
    except CloudRefused as error:
        if error.fields.get("gcp_code") != CHANGED:
            raise


def _delete_folder(account: GcpAccount, folder: str) -> None:
    objects = Objects(account)
    objects.delete_many([facts.key for facts in objects.list(folder)])
