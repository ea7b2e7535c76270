# References: Compute Engine, "Create an image from a persistent disk".
"""Generation P: what the disk holds goes to the bucket first, then the disk becomes an image.

Google lets nobody read a disk by blocks. A machine that has the disk attached writes its blocks to
the bucket, where the target site reads them; index before image, so that a finished image can
always be read.
"""

from __future__ import annotations

from typing import Final

from imageport.cloud import CloudDisk
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.disks import describe_disk, wait_free
from imageport.clouds.gcp.images import (
    delete_image,
    describe_image,
    insert_disk_image,
    wait_ready,
)
from imageport.clouds.gcp.names import image_id, parse_id, resource_name
from imageport.clouds.gcp.segment_collection import Collected, forget_image
from imageport.clouds.gcp.segment_index import ImageIndex, read_index, write_index
from imageport.clouds.gcp.segment_machine import write_segments
from imageport.clouds.gcp.stopped_machine import delete_stopped_machine, keep_stopped_machine
from imageport.clouds.gcp.upload_markers import segments_kept
from imageport.clouds.intents import Intent
from imageport.clouds.tags import ROLE_PREPARED, ROLE_UPLOADED, TAG_NAME, TAG_ROLE
from imageport.errors import ResourceGone

FREE_SECONDS: Final = 300.0


def make_prepared_image(account: GcpAccount, disk: CloudDisk, name: str) -> str:
    """Make generation P of a disk that no machine has and return its id; finds a killed call's."""
    intent = account.intend("snapshot", ROLE_PREPARED, account.run, disk.id, name=name)
    known = intent.entry.resource_id
    reference = known or image_id(account.settings, resource_name(intent))
    facts = describe_image(account, reference)
    broken = facts is not None and facts.failed
    if broken:
        delete_image(account, reference)
    if broken or (known and facts is None):
        account.void(intent)
        return make_prepared_image(account, disk, name)
    if facts is None:
        _insert(account, disk, reference, intent)
    account.record(intent, reference)
    wait_ready(account, reference)
    if account.settings.keep_stopped_vm:
        keep_stopped_machine(account, reference)
    return reference


def delete_whole_image(account: GcpAccount, reference: str) -> Collected:
    """Delete an image with what belongs to it alone: stopped machine, index, blocks.

    What is gone is no error. The image goes before its index, so that none is left that cannot be
    read.
    """
    named = account.own(reference, "images")
    facts = describe_image(account, reference)
    if facts is None or facts.tags.get(TAG_ROLE) != ROLE_UPLOADED:
        delete_stopped_machine(account, reference)
    delete_image(account, reference)
    return forget_image(account, named.name)


def _insert(account: GcpAccount, disk: CloudDisk, reference: str, intent: Intent) -> None:
    name = parse_id(reference, "images").name
    wait_free(account, disk.id, FREE_SECONDS)
    if read_index(account, name) is None:
        # Blocks that the source's image has are not written again: until the index names them,
        # nobody may delete them.
        with segments_kept(account, name):
            manifest = write_segments(account, disk, name, _source_index(account, disk))
            write_index(account, name, manifest, intent.tags)
    insert_disk_image(account, name, intent, disk.id, words=intent.tags.get(TAG_NAME, ""))


def _source_index(account: GcpAccount, disk: CloudDisk) -> ImageIndex | None:
    """Return the index of the image that the disk was made from: its blocks lie there already."""
    facts = describe_disk(account, disk.id)
    if facts is None:
        raise ResourceGone(f"Cannot make an image of '{disk.id}': there is no such disk.")
    if not facts.source_image:
        return None
    source = read_index(account, facts.source_image.rsplit("/", maxsplit=1)[-1])
    return source if source is not None and source.has_segments else None
