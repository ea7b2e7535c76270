# References: Azure, "Upload a VHD to Azure" (createOption Upload); "Incremental snapshots".
"""Generation U: blocks written straight into a managed disk, which becomes a snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from imageport.clouds.azure.access_grant import AccessGrant
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.disk_sizes import (
    LARGEST_OS_DISK_BYTES,
    access_seconds,
    bytes_per_second,
    disk_bytes,
    upload_bytes,
)
from imageport.clouds.azure.disks import (
    UPLOADING,
    DiskFacts,
    create_upload_disk,
    delete_disk,
    describe_disk,
)
from imageport.clouds.azure.managed_disk_reader import SnapshotDisk
from imageport.clouds.azure.names import DISKS, resource_id, resource_name, snapshot_of_upload
from imageport.clouds.azure.snapshots import (
    create_snapshot,
    delete_snapshot,
    describe_snapshot,
    wait_completed,
)
from imageport.clouds.azure.upload_pages import UploadPages
from imageport.clouds.intents import token_of
from imageport.clouds.tags import ROLE_UPLOADED
from imageport.errors import CloudRefused, CloudUnavailable, ResourceGone
from imageport.model import BLOCK_BYTES, ZERO_DIGEST
from imageport.state.records import LedgerEntry
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan

ROLE_UPLOAD: Final = "upload"
"""Of the disk that is written; the snapshot that it becomes has the role ``uploaded``."""
PUT_BLOCKS: Final = 8
"""4 MiB, the most of one Put Page."""
UNCHECKED: Final = "Azure took no checksums with the pages: what is read back is the only proof"
TAG_DESCRIPTION: Final = "Description"
"""Azure's resources have no description of their own."""
TAG_CHARACTERS: Final = 256
REQUESTS_PER_SECOND: Final = 500.0
"""Limit of one page blob."""


def traits_of(
    location: str, *, parent: str = "", size_bytes: int = 0, encryption: str = ""
) -> TargetTraits:
    """Return the declared traits: of the slowest class as long as no size is known.

    ``encryption`` is the id of the encryption set: another one makes another disk.
    """
    return TargetTraits(
        name="azure-managed-disk",
        unwritten_reads_zero=True,
        fills_holes=False,
        starts_from_parent=False,
        put_blocks=PUT_BLOCKS,
        initial_in_flight=8,
        max_in_flight=32,
        max_requests_per_second=REQUESTS_PER_SECOND,
        max_bytes_per_second=bytes_per_second(min(size_bytes, LARGEST_OS_DISK_BYTES)),
        attributes={
            "location": location,
            "parent": parent,
            "encrypted": encryption.lower() or "platform key",
        },
    )


class ManagedDiskTarget(BlockTarget):
    """One disk that is open for upload; its handle is the disk's id, its reference a snapshot's.

    The snapshot's name follows from the disk's, so every step of committing finds what an earlier,
    killed call did. Azure itself says what is written (page ranges), and is asked before and after.
    """

    def __init__(
        self, account: AzureAccount, image: str, *, parent: str = "", description: str = ""
    ) -> None:
        settings = account.settings
        self.traits = traits_of(
            settings.location, parent=parent, encryption=settings.disk_encryption_set_id
        )
        self._account = account
        self._image = image
        self._parent = parent
        self._description = (description or f"imageport {image}")[:TAG_CHARACTERS]
        self._disk_id = ""
        self._pages: UploadPages | None = None
        self._parent_grant: AccessGrant | None = None
        self._sealed = False
        self._checksummed = True
        self._reader: SnapshotDisk | None = None

    @property
    def checksummed(self) -> bool:
        """Tell whether Azure compares an MD5 with every put; if not, reading back does it."""
        return self._checksummed and (self._pages is None or self._pages.checksummed)

    def begin(self, plan: TransferPlan, token: str) -> str:
        """Create the disk and write its footer, or find the one of an earlier call."""
        account = self._account
        size = upload_bytes(plan.size_bytes)
        fresh = False
        for _attempt in range(3):
            intent = account.intend("disk", ROLE_UPLOAD, token, name=self._image, fresh=fresh)
            known = intent.entry.resource_id
            disk_id = known or resource_id(account.settings, DISKS, resource_name(intent))
            # A finished upload that the caller has no record of: the sweep's to judge.
            fresh = describe_snapshot(account, snapshot_of_upload(disk_id)) is not None
            if fresh:
                continue
            facts = describe_disk(account, disk_id)
            if facts is None and known:
                account.void(intent)  # deleted behind our back
            elif facts is None or _fits(facts, plan):
                if facts is None:
                    create_upload_disk(account, disk_id, intent, size)
                account.record(intent, disk_id)
                self._open(plan, disk_id)
                return disk_id
            else:
                delete_disk(account, disk_id)
                account.void(intent)
        raise CloudUnavailable(f"Cannot open a disk for '{self._image}': Azure lost it 3 times.")

    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Take up a disk that is open, or what it became just before a crash."""
        snapshot = describe_snapshot(self._account, snapshot_of_upload(handle))
        facts = describe_disk(self._account, handle)
        if snapshot is not None and (facts is None or snapshot.complete):
            self._check_size(handle, snapshot.size_bytes, plan)
            self._disk_id, self._sealed = handle, snapshot.complete
            return
        if facts is None or facts.provisioning == "Failed":
            found = "nothing" if facts is None else "a failed disk"
            raise ResourceGone(f"Cannot resume '{handle}': found {found}, needed ActiveUpload.")
        self._check_size(handle, facts.size_bytes, plan)
        self._disk_id = handle
        if facts.state in UPLOADING:
            self._open(plan, handle)
        elif not self._open_intents():
            raise ResourceGone(f"Cannot resume '{handle}': found it closed, needed ActiveUpload.")

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Write one block; zeros are written by clearing its pages."""
        self.put_run(index, data, [digest])

    def put_run(self, first_index: int, data: bytes | memoryview, digests: Sequence[bytes]) -> None:
        """Write adjacent blocks with one Put Page."""
        pages = self._writable()
        view = memoryview(data)
        self._check_run(first_index, view, digests)
        self._account.live()
        offset, length = first_index * BLOCK_BYTES, len(view)
        if all(digest == ZERO_DIGEST for digest in digests):
            pages.clear(offset, length)
        else:
            pages.put(offset, data if isinstance(data, bytes) else bytes(view))

    def take_from_parent(self, first_index: int, count: int) -> None:
        """Let Azure copy adjacent blocks from the parent's snapshot."""
        pages = self._writable()
        if self._parent_grant is None:
            raise CloudRefused(f"Cannot copy to '{self._disk_id}': it was opened without a parent.")
        self._account.live()
        pages.copy(first_index * BLOCK_BYTES, count * BLOCK_BYTES, self._parent_grant)

    def lost(self, indexes: Collection[int]) -> set[int]:
        """Return the blocks that the disk does not hold; all that was put is asked for once."""
        if self._sealed or self._pages is None:
            return set()
        held = self._pages.written_blocks()
        return set() if held is None else {index for index in indexes if not held.get(index)}

    def commit(self, digests: Mapping[int, bytes]) -> str:
        """Check what is written, close the upload, snapshot the disk and delete it."""
        if not self._disk_id:
            raise CloudRefused("Cannot commit: no upload was begun.")
        snapshot_id = snapshot_of_upload(self._disk_id)
        if not self._sealed or self._open_intents():
            account = self._account
            facts = describe_snapshot(account, snapshot_id)
            if facts is not None and facts.failed:
                delete_snapshot(account, snapshot_id)  # the disk has it all: once more
            intent = account.intend(*self._snapshot_facts(), name=self._image)
            if facts is None or facts.failed:
                self._close_upload(digests)
                described = replace(intent, tags=intent.tags | {TAG_DESCRIPTION: self._description})
                create_snapshot(account, snapshot_id, described, self._disk_id)
            account.record(intent, snapshot_id)
            wait_completed(account, snapshot_id)
            self._sealed = True
        self._end_access()
        delete_disk(self._account, self._disk_id)
        return snapshot_id

    def abort(self) -> None:
        """Delete the disk, and its snapshot unless that is complete."""
        if not self._disk_id or self._sealed:
            return
        account = self._account
        snapshot_id = snapshot_of_upload(self._disk_id)
        facts = describe_snapshot(account, snapshot_id)
        if facts is not None and facts.complete:
            return  # what is left of the disk goes with the next commit, or the sweep
        if facts is not None:
            delete_snapshot(account, snapshot_id)
        for entry in self._open_intents():
            account.ledger.mark(entry.id, "deleted")
        self._end_access()
        delete_disk(account, self._disk_id)
        self._pages = None

    def remarks(self) -> tuple[str, ...]:
        """Say so when Azure took no checksums."""
        return () if self.checksummed else (UNCHECKED,)

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield blocks of the snapshot, by another URL than the one that wrote."""
        if self._reader is None:  # one for all calls: each has threads and an access of its own
            self._reader = SnapshotDisk(self._account, snapshot_of_upload(self._disk_id))
        blocks = ((index * BLOCK_BYTES, BLOCK_BYTES) for index in indexes)
        for offset, data in self._reader.read_many(blocks):
            yield offset // BLOCK_BYTES, data

    def close(self) -> None:
        """Revoke access for reading; the disk stays open for upload, so that it can be resumed."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        if self._parent_grant is not None:
            self._parent_grant.let_go()

    def _open(self, plan: TransferPlan, disk_id: str) -> None:
        size = disk_bytes(plan.size_bytes)
        seconds = access_seconds(plan.bytes_to_read, size)
        self._disk_id = disk_id
        location = self._account.settings.location
        self.traits = replace(
            traits_of(location, parent=self._parent, size_bytes=size),
            attributes=self.traits.attributes,
        )
        self._pages = UploadPages(self._account, disk_id, size, seconds)
        self._pages.write_footer()
        if self._parent:
            # Whatever the parent does not give is sent: one URL that opens nothing is enough.
            self._parent_grant = AccessGrant(
                self._account, self._parent, "Read", seconds, patience=0
            )

    def _writable(self) -> UploadPages:
        if self._pages is None:
            found = f"'{self._disk_id}' closed" if self._disk_id else "no disk"
            raise ResourceGone(f"Cannot write a block: found {found}, needed one open for upload.")
        return self._pages

    def _check_run(self, first: int, view: memoryview, digests: Sequence[bytes]) -> None:
        """Refuse what a server that takes SHA-256 would refuse; the MD5 covers the way there."""
        if len(view) != len(digests) * BLOCK_BYTES or not 0 < len(digests) <= PUT_BLOCKS:
            raise CloudRefused(
                f"Bad block '{self._disk_id}/{first}': found {len(view)} bytes, "
                f"needed {len(digests)} of {BLOCK_BYTES}, at most {PUT_BLOCKS}."
            )
        for number, digest in enumerate(digests):
            piece = view[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
            if hashlib.sha256(piece).digest() != digest:
                raise CloudRefused(
                    f"Bad block '{self._disk_id}/{first + number}': found other data than its "
                    "SHA-256 says."
                )

    def _close_upload(self, digests: Mapping[int, bytes]) -> None:
        """Check and revoke; what a killed call revoked already is checked by reading access."""
        facts = describe_disk(self._account, self._disk_id)
        if facts is None:
            raise ResourceGone(f"Cannot commit '{self._disk_id}': it was deleted meanwhile.")
        size = facts.size_bytes
        pages = self._pages or UploadPages(
            self._account, self._disk_id, size, access_seconds(size, size)
        )
        pages.finish(facts.state, digests)
        self._checksummed = pages.checksummed
        self._pages = None

    def _snapshot_facts(self) -> tuple[str, str, str]:
        return "snapshot", ROLE_UPLOADED, self._disk_id.lower()

    def _open_intents(self) -> list[LedgerEntry]:
        """Return the ledger's entries for the snapshot: written before the upload is closed.

        Without one a closed disk was closed by somebody else, half written, and stays closed.
        """
        account = self._account
        token = f"{account.scope}/{token_of(account.site, *self._snapshot_facts())}"
        entries = account.ledger.open_entries(site=account.site)
        return [entry for entry in entries if entry.token == token]

    def _end_access(self) -> None:
        if self._parent_grant is not None:
            self._parent_grant.revoke()

    def _check_size(self, handle: str, found: int, plan: TransferPlan) -> None:
        needed = disk_bytes(plan.size_bytes)
        if found != needed:
            raise ResourceGone(
                f"Cannot resume '{handle}': found {found} bytes, needed {needed} bytes."
            )


def _fits(facts: DiskFacts, plan: TransferPlan) -> bool:
    sound = facts.provisioning != "Failed" and facts.state in UPLOADING
    return sound and facts.size_bytes == disk_bytes(plan.size_bytes)
