# References: Compute Engine, "Manually import boot disks"; Cloud Storage, "Resumable uploads".
"""Generation U without joining: one plain tar.gz, sent in order through one upload session.

The fallback for when Google refuses an archive that was joined: no piece of this one is flushed, it
is what ``tar -Scz`` writes. It sends everything each time and nobody can read the image back by
blocks; what proves it is the CRC32C of the whole.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from isal import isal_zlib

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.archive_upload import ArchiveUpload
from imageport.clouds.gcp.deflated_block import LEVEL
from imageport.clouds.gcp.image_upload import ImageUpload
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.sparse_archive import plain_ends
from imageport.errors import CloudRefused, ResourceGone, VerificationFailed
from imageport.model import BLOCK_BYTES, ZERO_BLOCK, ZERO_DIGEST
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan
from imageport.transfer.digest_table import DigestTable
from imageport.transfer.manifest import Manifest, block_count

STREAM: Final = "stream"
GZIP_WINDOW: Final = 31
"""The largest window, with gzip's header and trailer: what ``tar -z`` writes."""
NOT_READ_BACK: Final = (
    "the image was sent as one archive, whose CRC32C the bucket confirmed; it cannot be read back"
)


class StreamedArchiveTarget(BlockTarget):
    """One archive that is being sent; handle and reference are as `SegmentTarget`'s.

    The archive's map stands at its beginning, so it names every block that the plan has data for;
    those that turn out to be zeros, which nobody puts, are sent as zeros.
    """

    def __init__(self, account: GcpAccount, image: str, *, description: str = "") -> None:
        self.traits = TargetTraits(
            name="gcp-stream",
            unwritten_reads_zero=True,
            fills_holes=False,
            starts_from_parent=False,
            initial_in_flight=1,
            max_in_flight=1,  # an archive has an order, and one thread keeps it
            verify_by_read_back=False,
            attributes={"parent": "", "encrypted": account.settings.kms_key or "platform key"},
        )
        self._account = account
        self._upload = ImageUpload(account, image, description=description, archive=STREAM)
        self._archive: ArchiveUpload | None = None
        self._writer: ArchiveWriter | None = None

    def begin(self, plan: TransferPlan, token: str) -> str:
        """Write the marker and open a session, or find those of an earlier call."""
        handle = self._upload.begin(plan, token)
        archive = self._new_archive()
        writer = ArchiveWriter(archive, self._upload.size_bytes, plan.data_blocks)
        archive.open(writer.identity)
        self._take(archive, writer)
        return handle

    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Take up a session, or the image that its archive became.

        Raises:
            ResourceGone: the session has ended, or the plan makes another archive.
        """
        self._upload.resume(plan, handle)
        if self._upload.sealed:
            return
        archive = self._new_archive()
        writer = ArchiveWriter(archive, self._upload.size_bytes, plan.data_blocks)
        if not archive.take_up(writer.identity):
            # Nobody can go on with it, and as long as its marker is there nothing is collected.
            archive.give_up()
            self._upload.abort()
            raise ResourceGone(f"Cannot resume '{handle}': its upload session has ended.")
        self._take(archive, writer)

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Add one block to the archive; only what was added last, or lies behind it, is taken."""
        archive, writer = self._open_archive()
        if archive.finished:
            raise ResourceGone(f"Cannot write block {index}: its archive is finished.")
        if len(data) != BLOCK_BYTES or hashlib.sha256(data).digest() != digest:
            raise CloudRefused(
                f"Bad block '{self._upload.name}/{index}': found other data than its SHA-256 says."
            )
        self._account.live()
        writer.add(index, data, digest)
        archive.send()

    def take_from_parent(self, first_index: int, count: int) -> None:
        """Refuse: an archive is sent whole."""
        raise CloudRefused(
            f"Cannot take {count} blocks from {first_index} on from a parent: an archive that is "
            "sent in order has none."
        )

    def lost(self, indexes: Collection[int]) -> set[int]:
        """Return all blocks unless the archive is finished: it is made again from its beginning.

        What the session has of it is not sent again.
        """
        finished = self._upload.sealed or (self._archive is not None and self._archive.finished)
        return set() if finished else set(indexes)

    def commit(self, digests: Mapping[int, bytes]) -> str:
        """Send the archive's end, compare its checksum, and have Google make the image."""
        manifest = Manifest(self._upload.size_bytes, absent_reads_zero=True)
        for index, digest in digests.items():
            if digest != ZERO_DIGEST:
                manifest.set(index, digest)
        return self._upload.commit(manifest, lambda: self._finish_archive(manifest))

    def abort(self) -> None:
        """End the session and remove marker and archive."""
        if self._archive is not None and not self._upload.sealed:
            self._archive.give_up()
        self._upload.abort()

    def remarks(self) -> tuple[str, ...]:
        """Say what proves the image."""
        return (NOT_READ_BACK,)

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Refuse: Google reads no image out, and the archive is gone."""
        raise CloudRefused(f"Cannot read {list(indexes)[:1]} back: {NOT_READ_BACK}.")

    def close(self) -> None:
        """Leave the session open, so that it can be resumed."""
        return

    def _new_archive(self) -> ArchiveUpload:
        upload = self._upload
        return ArchiveUpload(Objects(self._account), upload.archive_key, f"{upload.folder}session")

    def _take(self, archive: ArchiveUpload, writer: ArchiveWriter) -> None:
        writer.begin()
        self._archive, self._writer = archive, writer

    def _open_archive(self) -> tuple[ArchiveUpload, ArchiveWriter]:
        if self._archive is None or self._writer is None or self._upload.sealed:
            found = "its image made already" if self._upload.sealed else "no upload begun"
            raise ResourceGone(f"Cannot write a block: found {found}, needed one under way.")
        return self._archive, self._writer

    def _finish_archive(self, manifest: Manifest) -> None:
        archive, writer = self._open_archive()
        content = manifest.image_digest()
        if not archive.finished:
            writer.check_counted(manifest)
            writer.end()
            archive.finish(content)
        elif not archive.holds(content):
            raise VerificationFailed(
                f"Bad archive of '{self._upload.name}': found one of other blocks than those that "
                "were put.",
                hint="Abort the upload and start again.",
            )


class ArchiveWriter:
    """Makes the archive's bytes in order: the same ones whenever the same blocks are added.

    Args:
        archive: Takes the bytes.
        size_bytes: Of the disk; a multiple of one GiB.
        planned: Every block that may be added, ascending.
    """

    def __init__(self, archive: ArchiveUpload, size_bytes: int, planned: Sequence[int]) -> None:
        self._archive = archive
        self._planned = planned
        self._head, self._end = plain_ends(size_bytes, planned)
        self._deflating = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
        self._next = 0
        """Place in the plan of the next block."""
        self._ended = False
        self._added = DigestTable(block_count(size_bytes))

    @property
    def identity(self) -> str:
        """Return what tells this disk's archive from others, as far as that is known beforehand."""
        return hashlib.sha256(self._head).hexdigest()

    def begin(self) -> None:
        """Append the archive's head."""
        self._append(self._head)

    def add(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Append a block and the zeros before it; one that was added is not added again.

        Raises:
            CloudRefused: the plan has no such block, or the archive is past it.
        """
        if self._added.get(index) == digest:
            return
        place = bisect_left(self._planned, index, lo=self._next)
        if place == len(self._planned) or self._planned[place] != index:
            raise CloudRefused(
                f"Cannot add block {index} to an archive: found it past that, or planned without "
                "it, needed blocks in their order."
            )
        self._fill_up_to(place)
        self._append(data)
        self._next += 1
        self._added.set(index, digest)

    def end(self) -> None:
        """Append what is planned and nobody put, and the archive's end; once."""
        if self._ended:
            return
        self._fill_up_to(len(self._planned))
        self._append(self._end)
        self._archive.append(self._deflating.flush())
        self._ended = True

    def check_counted(self, manifest: Manifest) -> None:
        """Refuse a commit of other blocks than those that were added."""
        data = {index for index, digest in self._added.items() if digest != ZERO_DIGEST}
        other = [
            index
            for index in sorted(data | set(manifest.digests))
            if self._added.get(index) != manifest.digests.get(index)
        ]
        if other:
            raise CloudRefused(
                f"Bad commit: found {len(other)} blocks that are counted with other content than "
                f"was added, among them {other[:8]}."
            )

    def _fill_up_to(self, place: int) -> None:
        while self._next < place:
            self._append(ZERO_BLOCK)
            self._next += 1

    def _append(self, plain: bytes | memoryview) -> None:
        self._archive.append(self._deflating.compress(plain))
