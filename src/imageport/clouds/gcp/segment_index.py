# References: Cloud Storage JSON API, "Objects"; [RFC 6234] SHA-256.
"""What every block of an image holds, kept in the bucket beside its segments.

The bucket alone is enough to read an image, to make a child of it and to know which segments
somebody needs: no state store is asked, and none has to be believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.names import metadata_of, site_folder, tags_of_object
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.waiting import retried
from imageport.errors import ResourceGone, StateError
from imageport.model import ZERO_DIGEST
from imageport.transfer.manifest import Manifest

METADATA_ARCHIVE: Final = "imageport-archive"
"""`imageport.clouds.gcp.settings.ARCHIVES`: an image that was streamed has no segments."""
SEGMENTS: Final = "segments"
MOST_BYTES: Final = 256 * 1024 * 1024
"""Of an index: 33 bytes a block, those of a disk of 4 TiB without a hole."""


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """The blocks of one image."""

    image: str
    """Its name."""
    manifest: Manifest
    """What is not written there, and what is written as zeros, is a hole in the archive."""
    archive: str
    tags: Mapping[str, str]

    @property
    def has_segments(self) -> bool:
        """Tell whether blocks can be read from the bucket."""
        return self.archive == SEGMENTS

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (index, digest) of every block that holds more than zeros, ascending."""
        for index, digest in self.manifest.digests.items():
            if digest != ZERO_DIGEST:
                yield index, digest


def index_folder(settings: GcpSettings) -> str:
    """Return where the indexes of a site lie."""
    return f"{site_folder(settings)}index/"


def index_key(settings: GcpSettings, image: str) -> str:
    """Return the key of an image's index."""
    return f"{index_folder(settings)}{image}"


def write_index(
    account: GcpAccount,
    image: str,
    manifest: Manifest,
    tags: Mapping[str, str],
    *,
    archive: str = SEGMENTS,
) -> None:
    """Write the index of an image, over one that an earlier, killed call wrote.

    Until the image exists an upload's marker has to keep its segments: write the index first,
    then make the image, then take the marker away.
    """
    metadata = metadata_of(tags) | {METADATA_ARCHIVE: archive}
    key, data = index_key(account.settings, image), manifest.to_bytes()
    retried(lambda: Objects(account).put(key, data, metadata))


def read_index(account: GcpAccount, image: str) -> ImageIndex | None:
    """Return the index of an image by its name, or None when there is none.

    Raises:
        StateError: it is damaged.
    """
    objects, key = Objects(account), index_key(account.settings, image)
    try:
        facts = retried(lambda: objects.stat(key))
        if facts is None:
            return None
        data = retried(lambda: objects.get(key, MOST_BYTES))
    except ResourceGone:
        return None
    manifest = Manifest.from_bytes(data, key)
    archive = facts.metadata.get(METADATA_ARCHIVE, SEGMENTS)
    return ImageIndex(image, manifest, archive, tags_of_object(facts.metadata))


def index_of(account: GcpAccount, reference: str) -> ImageIndex:
    """Return the index of an image by its id.

    Raises:
        ResourceGone: it has none: somebody deleted it, or another product made the image.
    """
    name = account.own(reference, "images").name
    found = read_index(account, name)
    if found is None:
        key = index_key(account.settings, name)
        raise ResourceGone(f"Cannot read '{name}': its index '{key}' is not in the bucket.")
    return found


def has_index(account: GcpAccount, reference: str) -> bool:
    """Tell whether there is an index, without reading it."""
    key = index_key(account.settings, account.own(reference, "images").name)
    return retried(lambda: Objects(account).stat(key)) is not None


def has_segments(account: GcpAccount, reference: str) -> bool:
    """Tell whether the blocks of an image can be taken from the bucket."""
    try:
        return index_of(account, reference).has_segments
    except (ResourceGone, StateError):
        return False
