"""A site: the work pool whose workers are there, and what they can reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from pydantic import Field, HttpUrl, field_validator, model_validator

from blocks._block import ImageportBlock
from blocks.shares import SmbShare
from blocks.stores import PvsStore
from imageport.citrix.vdisk_store import VdiskStore
from imageport.errors import InputError
from imageport.payload import pack_pinned
from imageport.state.store import StateStore
from imageport.storage.locate import open_folder


class Site(ImageportBlock):
    """A place with workers: its vDisk store, its state store, its operator's files.

    Example:
        Load a saved site:
        ```python
        from blocks import Site

        site = Site.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Site (imageport)"
    _block_type_slug = "imageport-site"
    _description = "A place with a work pool: stores, state, drivers, proxy."
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/ad39089fa66d273b943394a68f003f7a19aa850e-48x48.png"
    )
    _documentation_url = HttpUrl("https://docs.prefect.io/v3/concepts/work-pools")

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,38}$",
        description="Short name of the site, used in tags and in the catalogue.",
    )
    work_pool: str = Field(
        min_length=1,
        description="Work pool whose workers are at this site; deployments have its name.",
    )
    store: PvsStore = Field(
        title="PVS vDisk store", description="The vDisk store that is read here or published to."
    )
    exports: PvsStore | None = Field(
        default=None,
        title="Export folder",
        description="Folder that master images are exported to from a hypervisor, kept like a "
        "vDisk store; needed for MCS images only.",
    )
    state_share: SmbShare | None = Field(
        default=None,
        title="State share",
        description="Share of the state store, which both sites of a run must reach.",
    )
    state_folder: str = Field(
        default="",
        description="Folder of the state store: on the share, or else an absolute local path.",
    )
    payload_folder: str = Field(
        default="",
        description="Folder on the worker with drivers and installers for the image.",
    )
    payload_sha256: str = Field(
        default="",
        pattern=r"^([0-9a-fA-F]{64})?$",
        description="Digest that pins the payload folder; a run without it says what it is.",
    )
    proxy: str = Field(
        default="",
        description="HTTPS proxy of this site, without user and password.",
    )
    ca_bundle: str = Field(
        default="", description="File on the worker with the certificates of a private CA."
    )

    @field_validator("proxy")
    @classmethod
    def _proxy_holds_no_secret(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("Bad proxy: found a user, needed none; every API client reads it.")
        return value

    @model_validator(mode="after")
    def _has_a_state_store(self) -> Self:
        if self.state_share is None and not Path(self.state_folder).is_absolute():
            raise ValueError(
                "Bad state store: found neither a share nor an absolute folder, needed one."
            )
        return self

    @model_validator(mode="after")
    def _exports_to_a_folder_of_its_own(self) -> Self:
        if self.exports and self.exports.location.casefold() == self.store.location.casefold():
            raise ValueError(
                "Bad export folder: found the vDisk store, needed a folder of its own: in a store, "
                "files that runs have not ended are taken for those of publishing."
            )
        return self

    @contextmanager
    def open_state(self) -> Iterator[StateStore]:
        """Open catalogue, ledger, journals and leases; disconnect at the end."""
        if self.state_share is None:
            folder = open_folder(self.state_folder)
        else:
            folder = self.state_share.open_folder(self.state_folder)
        with folder:
            yield StateStore(folder)

    @contextmanager
    def open_source(self, *, exports: bool) -> Iterator[VdiskStore]:
        """Open the vDisk store or the export folder; disconnect at the end."""
        folder = self.exports if exports else self.store
        if folder is None:
            raise InputError(
                f"Cannot export at site '{self.name}': its Site block has no export folder.",
                hint="Name one under Export folder: a folder on a share that this worker writes.",
            )
        with folder.open_store() as store:
            yield store

    @contextmanager
    def open_payload(self) -> Iterator[Path | None]:
        """Pack the operator's folder and check its digest; None when the site has none."""
        if not self.payload_folder:
            yield None
            return
        with TemporaryDirectory(prefix="imageport-payload-") as scratch:
            packed = Path(scratch, "payload.zip")
            yield pack_pinned(Path(self.payload_folder), self.payload_sha256, packed)
