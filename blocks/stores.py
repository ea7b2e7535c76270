"""A PVS vDisk store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import Field, HttpUrl

from blocks._block import ImageportBlock
from blocks.shares import RelativeFolder, SmbShare
from imageport.citrix.vdisk_store import VdiskStore


class PvsStore(ImageportBlock):
    """A folder on a share that PVS servers use as a vDisk store.

    Example:
        Load a saved store:
        ```python
        from blocks import PvsStore

        store = PvsStore.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "PVS vDisk Store (imageport)"
    _block_type_slug = "imageport-pvs-store"
    _description = "A Citrix Provisioning vDisk store on a file share."
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/ad39089fa66d273b943394a68f003f7a19aa850e-48x48.png"
    )
    _documentation_url = HttpUrl("https://docs.citrix.com/en-us/provisioning/current-release/")

    share: SmbShare = Field(title="SMB share", description="The share that the store lies on.")
    folder: RelativeFolder = Field(
        default="", description="The store's folder below the share's folder; empty is that folder."
    )

    @property
    def location(self) -> str:
        """Return where the store lies; holds no secret."""
        folder = self.folder.strip("/")
        return f"{self.share.location}/{folder}" if folder else self.share.location

    @contextmanager
    def open_store(self) -> Iterator[VdiskStore]:
        """Connect to the store and disconnect at the end."""
        with self.share.open_folder(self.folder) as folder:
            yield VdiskStore(folder)
