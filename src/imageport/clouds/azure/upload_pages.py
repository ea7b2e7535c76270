# References: Azure, "Upload a VHD to Azure"; Blob service REST API, page blobs.
"""The pages of a disk that is open for upload: footer first, blocks, and what is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from imageport.clouds.azure.access_grant import AccessGrant, end_access
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.disks import UPLOADING, describe_disk
from imageport.clouds.azure.footer import FOOTER_BYTES, vhd_footer
from imageport.clouds.azure.granted_pages import GrantedPages, HeldBlocks, WrittenRanges
from imageport.clouds.azure.waiting import retried, wait_for
from imageport.errors import (
    CloudRefused,
    CloudUnavailable,
    ResourceGone,
    VerificationFailed,
)
from imageport.model import ZERO_DIGEST

CLOSED_SECONDS: Final = 600.0
NAMED_BLOCKS: Final = 5


class UploadPages:
    """One disk open for upload, through one write access; may be used from several threads."""

    def __init__(
        self, account: AzureAccount, disk_id: str, size_bytes: int, seconds: float
    ) -> None:
        self._account = account
        self._disk_id = disk_id
        self._size = size_bytes
        self._seconds = seconds
        self._grant = AccessGrant(account, disk_id, "Write", seconds)
        self._pages = GrantedPages(account.clients, self._grant)
        self._lists: bool | None = None
        """Whether the URL for writing also tells what is written; None as long as nobody asked."""

    @property
    def checksummed(self) -> bool:
        """Tell whether the service still takes transactional checksums."""
        return self._pages.client.checksums

    def write_footer(self) -> None:
        """Write the footer and look whether it is there, before hours go into the disk.

        Raises:
            VerificationFailed: it reads back as something else.
        """
        footer = vhd_footer(self._size, self._disk_id.lower())
        self._pages.put(self._size, footer)
        url = self._grant.url()
        try:
            found = retried(lambda: self._pages.client.get(url, self._size, FOOTER_BYTES))
        except CloudRefused as error:
            # The URL wrote a moment ago: then it is reading that it does not allow.
            if error.fields.get("status") != 403:
                raise
            return
        if found != footer:
            raise VerificationFailed(
                f"Bad footer of '{self._pages.subject}': found other bytes than were written."
            )

    def put(self, offset: int, data: bytes) -> None:
        """Write whole pages, once."""
        self._pages.put(offset, data)

    def clear(self, offset: int, length: int) -> None:
        """Make pages read as zeros, once."""
        self._pages.clear(offset, length)

    def copy(self, offset: int, length: int, source: AccessGrant) -> None:
        """Copy pages from a snapshot, once."""
        self._pages.copy(offset, length, source)

    def written_blocks(self) -> HeldBlocks | None:
        """Return every block with something written, and whether all of it is; None if refused."""
        if self._lists is None:
            self._lists = self._may_list()
        return self._blocks(self._pages) if self._lists else None

    def finish(self, state: str, digests: Mapping[int, bytes]) -> None:
        """Check that exactly the blocks of ``digests`` are written, and close the upload.

        Raises:
            VerificationFailed: blocks are missing; while the upload is open they can be put.
            CloudRefused: there are blocks that nobody put, or Azure takes it for no disk.
        """
        held = self.written_blocks() if state in UPLOADING else None
        if held is not None:
            self._check(held, digests)
        if state in UPLOADING:
            self._grant.url()  # an upload that nobody opened cannot be closed
            self._grant.revoke()
        wait_for(self._pages.subject, self._closed, CLOSED_SECONDS, pulse=self._account.live)
        if held is None:
            self._check(self._blocks_by_reading(), digests)

    def _closed(self) -> bool | None:
        facts = describe_disk(self._account, self._disk_id)
        if facts is None:
            raise ResourceGone(f"Cannot close '{self._disk_id}': it was deleted meanwhile.")
        if facts.state == "ActiveSAS":
            end_access(self._account, self._disk_id)  # a killed call was reading it
        return True if facts.state == "Unattached" else None

    def _may_list(self) -> bool:
        url = self._grant.url()
        try:
            retried(
                lambda: list(self._pages.client.ranges(url, self._size, self._size + FOOTER_BYTES))
            )
        except CloudRefused as error:
            if error.fields.get("status") != 403:
                raise
            # Ended, or not allowed? A URL that is new for certain tells.
            self._grant.renew(url)
            fresh = self._grant.url()
            if fresh != url:
                raise CloudUnavailable(
                    f"Cannot list '{self._pages.subject}': its access had ended."
                ) from None
            return False
        return True

    def _blocks(self, pages: GrantedPages) -> HeldBlocks:
        ranges = WrittenRanges(
            self._size, lambda start, end: retried(lambda: pages.ranges(start, end))
        )
        return HeldBlocks(self._size, ranges.all())

    def _blocks_by_reading(self) -> HeldBlocks:
        grant = AccessGrant(self._account, self._disk_id, "Read", self._seconds)
        try:
            return self._blocks(GrantedPages(self._account.clients, grant))
        finally:
            grant.revoke()

    def _check(self, held: Mapping[int, bool], digests: Mapping[int, bytes]) -> None:
        missing = [
            index
            for index, digest in digests.items()
            if digest != ZERO_DIGEST and not held.get(index)
        ]
        if missing:
            raise VerificationFailed(
                f"Bad upload '{self._pages.subject}': {len(missing)} blocks that were put are not "
                f"there, among them {sorted(missing)[:NAMED_BLOCKS]}.",
                hint="Start again. If it happens again, ask who else writes this disk.",
            )
        extra = [index for index in held if index not in digests]
        if extra:
            raise CloudRefused(
                f"Bad upload '{self._pages.subject}': {len(extra)} blocks hold what nobody put, "
                f"among them {sorted(extra)[:NAMED_BLOCKS]}.",
                hint="Somebody else writes this disk; start again.",
            )
