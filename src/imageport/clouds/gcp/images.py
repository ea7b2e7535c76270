# References: Compute Engine REST v1, "images"; "Manually import boot disks" (disk.raw in tar.gz).
"""Images, which both generations become: made from an archive or a disk, waited for, deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.named_resources import delete, make
from imageport.clouds.gcp.names import description_of, image_id, labels_of, tags_of
from imageport.clouds.intents import Intent
from imageport.clouds.tags import TAG_TOKEN
from imageport.clouds.waiting import retried, wait_for
from imageport.errors import CloudRefused, ResourceGone
from imageport.model import GIB

if TYPE_CHECKING:
    from google.cloud.compute_v1.types import Image

GUEST_OS_FEATURES: Final = (
    "WINDOWS",
    "UEFI_COMPATIBLE",
    "VIRTIO_SCSI_MULTIQUEUE",
    "MULTI_IP_SUBNET",
    "GVNIC",
)
"""What prepared images can do; machines made from an image may use nothing else."""
OBJECT_URL: Final = "https://storage.googleapis.com/"
"""How Compute Engine names an object, whatever address its API is reached at."""
READY: Final = "READY"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What Google tells about an image."""

    id: str
    status: str
    """``PENDING``, ``READY``, ``FAILED``, ``DELETING``."""
    size_bytes: int
    """Of disks made from it: whole GiB."""
    kms_key: str
    """With the version that Google took; empty when the key is Google's."""
    storage_locations: tuple[str, ...]
    tags: dict[str, str] = field(default_factory=dict)
    """Ours, exactly."""

    @property
    def ready(self) -> bool:
        """Tell whether disks can be made from it."""
        return self.status == READY

    @property
    def failed(self) -> bool:
        """Tell whether it never becomes ready (any more)."""
        return self.status in {"FAILED", "DELETING"}


def describe_image(account: GcpAccount, reference: str) -> ImageFacts | None:
    """Return the image's facts, or None when it does not exist."""
    named = account.own(reference, "images")

    def ask() -> Image:
        with asked("compute.images.get", reference):
            return account.clients.images.get(project=named.project, image=named.name)

    try:
        return image_facts(str(named), retried(ask))
    except ResourceGone:
        return None


def image_facts(reference: str, found: Image) -> ImageFacts:
    """Return the facts of an image that Google described."""
    return ImageFacts(
        id=reference,
        status=found.status,
        size_bytes=found.disk_size_gb * GIB,
        kms_key=found.image_encryption_key.kms_key_name,
        storage_locations=tuple(found.storage_locations),
        tags=tags_of(found.description, found.labels),
    )


def insert_raw_image(
    account: GcpAccount, name: str, intent: Intent, source: str, *, words: str = ""
) -> None:
    """Ask for an image of an archive in the bucket and wait for the operation; again is harmless.

    Args:
        account: Of the run.
        name: Of the image.
        intent: Whose tags the image gets.
        source: ``gs://BUCKET/KEY`` of a tar.gz with one ``disk.raw``.
        words: What the image is, for people.

    Raises:
        CloudRefused: Google takes the archive for no disk, or the name is somebody else's.
    """
    url = OBJECT_URL + source.removeprefix("gs://")
    raw_disk = {"source": url, "container_type": "TAR"}
    _insert(account, name, intent, {"raw_disk": raw_disk}, words)


def insert_disk_image(
    account: GcpAccount, name: str, intent: Intent, disk_id: str, *, words: str = ""
) -> None:
    """Ask for an image of a disk that no machine has, and wait; again is harmless."""
    _insert(account, name, intent, {"source_disk": disk_id}, words)


def wait_ready(account: GcpAccount, reference: str) -> ImageFacts:
    """Wait until disks can be made from the image.

    Raises:
        ResourceGone: it was deleted, or Google gave it up.
        CloudUnavailable: not ready by the deadline of the settings.
    """

    def check() -> ImageFacts | None:
        facts = describe_image(account, reference)
        if facts is None or facts.failed:
            found = "nothing" if facts is None else f"status {facts.status}"
            raise ResourceGone(f"Bad image '{reference}': found {found}, needed {READY}.")
        return facts if facts.ready else None

    deadline = account.settings.image_deadline_seconds
    return wait_for(reference, check, deadline, pulse=account.live)


def delete_image(account: GcpAccount, reference: str) -> None:
    """Delete an image and wait; one that is gone is no error. Its index is not touched."""
    named = account.own(reference, "images")
    images = account.clients.images
    delete(
        account,
        "compute.images.delete",
        str(named),
        lambda: images.delete_unary(project=named.project, image=named.name),
    )


def _insert(
    account: GcpAccount, name: str, intent: Intent, source: dict[str, Any], words: str
) -> None:
    settings = account.settings
    reference = image_id(settings, name)
    image: dict[str, Any] = source | {
        "name": name,
        "description": description_of(intent.tags, words),
        "labels": labels_of(settings, intent.tags),
        "guest_os_features": [{"type_": feature} for feature in GUEST_OS_FEATURES],
        "storage_locations": [settings.region],
    }
    if settings.kms_key:
        image["image_encryption_key"] = {"kms_key_name": settings.kms_key}
    request = {"project": settings.project, "image_resource": image}
    made = make(
        account,
        "compute.images.create",
        reference,
        lambda id_: account.clients.images.insert_unary(request | {"request_id": id_}),
        deadline_seconds=settings.image_deadline_seconds,
    )
    if not made:
        _require_ours(account, reference, intent)


def _require_ours(account: GcpAccount, reference: str, intent: Intent) -> None:
    facts = describe_image(account, reference)
    if facts is not None and facts.tags.get(TAG_TOKEN) != intent.token:
        raise CloudRefused(
            f"Cannot make image '{reference}': the name is taken by one that is not of this run.",
            hint="Rename or delete that image, then start again.",
        )
