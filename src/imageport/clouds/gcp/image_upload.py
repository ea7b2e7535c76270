# References: Compute Engine REST v1, "images: insert" (rawDisk); Cloud Storage, preconditions.
"""The life of an upload, however its archive comes about: marker, archive, index, image.

Everything follows from the marker's name: the image's name, the keys of index and archive. So each
step finds what an earlier, killed call did, and the state store need not be believed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.images import (
    ImageFacts,
    delete_image,
    describe_image,
    insert_raw_image,
    wait_ready,
)
from imageport.clouds.gcp.names import image_id, object_id, resource_name
from imageport.clouds.gcp.segment_collection import (
    archive_folder,
    delete_archive,
    discard_upload,
)
from imageport.clouds.gcp.segment_index import write_index
from imageport.clouds.gcp.sparse_archive import whole_gib
from imageport.clouds.gcp.upload_markers import (
    ROLE_UPLOAD,
    delete_marker,
    find_marker,
    image_of_upload,
    marker_id,
    marker_name,
    write_marker,
)
from imageport.clouds.intents import token_of
from imageport.clouds.tags import ROLE_UPLOADED
from imageport.errors import CloudRefused, CloudUnavailable, ResourceGone
from imageport.state.records import LedgerEntry
from imageport.transfer.block_target import TransferPlan
from imageport.transfer.manifest import Manifest

ARCHIVE_NAME: Final = "disk.tar.gz"


class ImageUpload:
    """One upload; its handle is the marker's address, its reference the image's id.

    Args:
        account: Of the run.
        image: What the operator calls it.
        description: For people who look at the image.
        archive: `imageport.clouds.gcp.settings.ARCHIVES`.
    """

    def __init__(
        self, account: GcpAccount, image: str, *, description: str = "", archive: str
    ) -> None:
        self._account = account
        self._image = image
        self._description = description or f"imageport {image}"
        self._archive = archive
        self.name = ""
        """Of the marker; empty before the upload is begun."""
        self.size_bytes = 0
        """Of the image: whole GiB."""
        self.sealed = False
        """The image is made."""

    @property
    def image_name(self) -> str:
        """Return the name of the image that it becomes."""
        return image_of_upload(self.name)

    @property
    def reference(self) -> str:
        """Return the id of the image that it becomes."""
        return image_id(self._account.settings, self.image_name)

    @property
    def handle(self) -> str:
        """Return the address of the marker."""
        return marker_id(self._account.settings, self.name)

    @property
    def folder(self) -> str:
        """Return where the archive and its parts lie, with a slash at its end."""
        return archive_folder(self._account.settings, self.name)

    @property
    def archive_key(self) -> str:
        """Return the key of the archive."""
        return f"{self.folder}{ARCHIVE_NAME}"

    def begin(self, plan: TransferPlan, token: str) -> str:
        """Write the marker, or find the one of an earlier call; return the handle."""
        account, size = self._account, whole_gib(plan.size_bytes)
        fresh = False
        for _attempt in range(3):
            intent = account.intend("object", ROLE_UPLOAD, token, name=self._image, fresh=fresh)
            known = intent.entry.resource_id
            name = marker_name(account.settings, known) if known else resource_name(intent)
            # A finished upload that the caller has no record of: the sweep's to judge.
            fresh = self._described(name) is not None
            if fresh:
                continue
            marker = find_marker(account, name)
            if marker is None and known:
                account.void(intent)  # deleted behind our back
                continue
            if marker is not None and marker.size_bytes != size:
                discard_upload(account, marker_id(account.settings, name))
                account.void(intent)
                continue
            self.name, self.size_bytes, self.sealed = name, size, False
            return write_marker(account, intent, name, size)
        raise CloudUnavailable(
            f"Cannot begin an upload of '{self._image}': Google lost it 3 times."
        )

    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Take up an upload, or the image that it became just before a crash.

        Raises:
            ResourceGone: there is neither, or it is of another size.
        """
        name = marker_name(self._account.settings, handle)
        facts, marker = self._described(name), find_marker(self._account, name)
        made = facts is not None and not facts.failed
        if marker is None and not made:
            raise ResourceGone(f"Cannot resume '{handle}': found nothing, needed its marker.")
        found = facts.size_bytes if made and facts else marker.size_bytes if marker else 0
        needed = whole_gib(plan.size_bytes)
        if found != needed:
            raise ResourceGone(
                f"Cannot resume '{handle}': found {found} bytes, needed {needed} bytes."
            )
        self.name, self.size_bytes = name, needed
        self.sealed = facts is not None and facts.ready

    def commit(self, manifest: Manifest, make_archive: Callable[[], None]) -> str:
        """Make the image and return its id; what an earlier, killed call did is found.

        Args:
            manifest: Every block that holds more than zeros.
            make_archive: Brings the archive to `archive_key`; not called when the image is there.
        """
        if not self.name:
            raise CloudRefused("Cannot commit: no upload was begun.")
        account, name = self._account, self.image_name
        reference = self.reference
        if not self.sealed or self._open_intents():
            facts = self._described(self.name)
            if facts is not None and facts.failed:
                delete_image(account, reference)  # the bucket has it all: once more
                facts = None
            intent = account.intend("snapshot", ROLE_UPLOADED, self.handle, name=self._image)
            if facts is None:
                make_archive()
                write_index(account, name, manifest, intent.tags, archive=self._archive)
                source = object_id(account.settings, self.archive_key)
                insert_raw_image(account, name, intent, source, words=self._description)
            account.record(intent, reference)
            wait_ready(account, reference)
            self.sealed = True
        delete_archive(account, self.name)
        delete_marker(account, self.name)
        return reference

    def abort(self) -> None:
        """Remove what was begun; an image that is there stays, whoever made it."""
        if not self.name or self.sealed:
            return
        account = self._account
        facts = self._described(self.name)
        if facts is not None and facts.ready:
            return  # what is left of the upload goes with the next commit, or the sweep
        if facts is not None:
            delete_image(account, facts.id)
        for entry in self._open_intents():
            account.ledger.mark(entry.id, "deleted")
        discard_upload(account, self.handle)

    def _described(self, name: str) -> ImageFacts | None:
        settings = self._account.settings
        return describe_image(self._account, image_id(settings, image_of_upload(name)))

    def _open_intents(self) -> list[LedgerEntry]:
        """Return the ledger's entries for the image."""
        account = self._account
        facts = ("snapshot", ROLE_UPLOADED, self.handle)
        token = f"{account.scope}/{token_of(account.site, *facts)}"
        entries = account.ledger.open_entries(site=account.site)
        return [entry for entry in entries if entry.token == token]
