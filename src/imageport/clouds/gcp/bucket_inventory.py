# References: Cloud Storage JSON API v1, "Objects: list" (startOffset).
"""What of a site lies in the bucket and is no segment that an index names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Final

from imageport.cloud import CloudResource
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.images import describe_image
from imageport.clouds.gcp.job_folder import delete_job_folder, job_folders
from imageport.clouds.gcp.names import (
    image_id,
    object_id,
    site_folder,
    tags_of_object,
    temporary_folder,
)
from imageport.clouds.gcp.objects import ObjectFacts, Objects
from imageport.clouds.gcp.segment_collection import (
    UNCOLLECTED,
    Collected,
    archives_folder,
    collect_segments,
    delete_archive,
    discard_upload,
    forget_image,
    uncollected_key,
)
from imageport.clouds.gcp.segment_index import index_folder
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.upload_markers import (
    LATE_SECONDS,
    ROLE_READING,
    TURN_SECONDS,
    delete_marker,
    marker_folder,
)
from imageport.clouds.tags import (
    TAG_EXPIRES,
    TAG_NAME,
    TAG_ROLE,
    TAG_RUN,
    TAG_SITE,
    TAG_TOKEN,
)
from imageport.clouds.waiting import retried
from imageport.errors import ResourceGone

KIND: Final = "object"
ROLE_INDEX: Final = "index"
"""Of an index whose image is gone: not `LASTING_ROLES`, which the sweep would leave."""
ROLE_BLOCKS: Final = "prepared-blocks"
ROLE_PARTS: Final = "archive-parts"
ROLE_SEGMENTS: Final = "uncollected-segments"
BEHIND: Final = "0"
"""The character after the slash: with it, a name sorts behind everything in its folder."""


class BucketInventory:
    """The objects of one site, looked at once.

    Taken before images are listed: what is written meanwhile is then never taken for an orphan.
    """

    def __init__(self, account: GcpAccount, site: str) -> None:
        self._settings = replace(account.settings, site=site)
        self._here = f"{account.scope}/"
        objects = Objects(account)
        self._markers = list(objects.list(marker_folder(self._settings)))
        self._indexes = list(objects.list(index_folder(self._settings)))
        self._prepared = list(folders(objects, f"{site_folder(self._settings)}out/"))
        self._parts = list(folders(objects, archives_folder(self._settings)))
        self._uncollected = retried(lambda: objects.stat(uncollected_key(self._settings)))
        self._jobs = job_folders(account, site)

    def resources(self, images: frozenset[str]) -> list[CloudResource]:
        """Return all that may have to go, given the names of all images of the site."""
        indexed = frozenset(_name(facts.key) for facts in self._indexes)
        uploads = frozenset(_name(facts.key) for facts in self._markers)
        read = frozenset(
            tags_of_object(facts.metadata).get(TAG_NAME, "") for facts in self._markers
        )
        found = [self._tagged(facts) for facts in self._markers]
        found += [
            self._tagged(facts, {TAG_ROLE: ROLE_INDEX})
            for facts in self._indexes
            if _name(facts.key) not in images
        ]
        kept = images | indexed | read
        found += [
            self._aged(folder, ROLE_BLOCKS, first)
            for folder, first in self._prepared
            if _name(folder) not in kept
        ]
        found += [
            self._aged(folder, ROLE_PARTS, first)
            for folder, first in self._parts
            if _name(folder) not in uploads
        ]
        mark = self._uncollected
        if mark is not None and not self._markers:
            # Until then somebody may be at it.
            seconds = TURN_SECONDS + LATE_SECONDS
            found.append(self._aged(mark.key, ROLE_SEGMENTS, mark, seconds))
        return [item for item in found if self._is_ours(item)] + self._jobs

    def _is_ours(self, resource: CloudResource) -> bool:
        """Tell what lies here: targets of other regions may share bucket and site."""
        tags = resource.tags
        aged = tags.get(TAG_ROLE) in {ROLE_BLOCKS, ROLE_PARTS, ROLE_SEGMENTS}
        return tags.get(TAG_SITE) == self._settings.site and (
            aged or tags.get(TAG_TOKEN, "").startswith(self._here)
        )

    def _tagged(self, facts: ObjectFacts, changed: dict[str, str] | None = None) -> CloudResource:
        tags = tags_of_object(facts.metadata) | (changed or {})
        return CloudResource(KIND, object_id(self._settings, facts.key), tags)

    def _aged(
        self, key: str, role: str, first: ObjectFacts, seconds: float | None = None
    ) -> CloudResource:
        """Return what says of no run whose it was: its age alone decides."""
        lives = timedelta(seconds=seconds or self._settings.expires_seconds)
        tags = {
            TAG_SITE: self._settings.site,
            TAG_RUN: "",
            TAG_ROLE: role,
            TAG_EXPIRES: (first.updated + lives).isoformat(timespec="seconds"),
        }
        return CloudResource(KIND, object_id(self._settings, key), tags)


def delete_from_bucket(account: GcpAccount, resource: CloudResource) -> Collected | None:
    """Delete what `BucketInventory` found, and say what became of segments; gone is no error.

    Raises:
        ResourceGone: it lies outside of the site's folders.
    """
    place, name = _place_and_name(account.settings, resource.id)
    collected = None
    if place == "uploads" and resource.tags.get(TAG_ROLE) == ROLE_READING:
        collected = _give_up_reading(account, name, resource.tags.get(TAG_NAME, ""))
    elif place == "uploads":
        collected = discard_upload(account, resource.id)
    elif place in {"index", "out"}:
        collected = _forget(account, name)
    elif place == UNCOLLECTED:
        collected = collect_segments(account)
    elif place == "archives":
        delete_archive(account, name)
    else:
        delete_job_folder(account, resource.id)
    account.mark(resource.id, "deleted")
    return collected


def folders(objects: Objects, root: str) -> Iterator[tuple[str, ObjectFacts]]:
    """Yield each folder below ``root``, with a slash at its end, and its first object."""
    start = ""
    while True:
        first = next(objects.list(root, start=start), None)
        if first is None:
            return
        folder = root + first.key.removeprefix(root).split("/", maxsplit=1)[0]
        yield f"{folder}/", first
        start = folder + BEHIND


def _place_and_name(settings: GcpSettings, resource_id: str) -> tuple[str, str]:
    for folder in (site_folder(settings), temporary_folder(settings)):
        root = object_id(settings, folder)
        if resource_id.startswith(root):
            place, _, name = resource_id.removeprefix(root).rstrip("/").partition("/")
            if name:
                return place, name
    raise ResourceGone(f"Cannot delete '{resource_id}': it is nothing of this site.")


def _give_up_reading(account: GcpAccount, marker: str, image: str) -> Collected:
    """Delete what a machine wrote of a disk that never became an image; the marker goes last."""
    if image:
        _forget(account, image)
    delete_marker(account, marker)
    return collect_segments(account)


def _forget(account: GcpAccount, image: str) -> Collected | None:
    """Delete index and blocks of an image unless it is there."""
    if describe_image(account, image_id(account.settings, image)) is None:
        return forget_image(account, image)
    return None


def _name(key: str) -> str:
    return key.rstrip("/").rsplit("/", maxsplit=1)[-1]
