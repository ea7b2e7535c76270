"""Where images go in Google Cloud."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from google.auth.credentials import Credentials

# At the top although it costs every process a second (it imports clients of four APIs): Prefect
# reads the reference to another block from the class of a field, when this one is defined.
from prefect_gcp import GcpCredentials  # type: ignore[import-untyped]
from pydantic import Field, HttpUrl, StringConstraints, model_validator

from blocks._block import ImageportBlock
from imageport.cloud import Cloud
from imageport.clouds.gcp.credentials import (
    credentials_from_file,
    credentials_from_info,
    credentials_from_worker,
)
from imageport.clouds.gcp.settings import DEFAULT_PREFIX, GcpSettings
from imageport.clouds.registry import cloud_class
from imageport.doctor.grants import gcp_grant
from imageport.state.ledger import Ledger

Subnet = Annotated[
    str,
    StringConstraints(pattern=r"^(projects/[^/]+/regions/[^/]+/subnetworks/[a-z][-a-z0-9]*)?$"),
]
MachineType = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$")]
NetworkTag = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]


class GcpTarget(ImageportBlock):
    """A Google Cloud project, zone, bucket and network that images are brought to.

    Without credentials the worker's own are taken: the file that GOOGLE_APPLICATION_CREDENTIALS
    names (workload identity federation or a key), else the service account of its machine.

    Example:
        Load a saved target:
        ```python
        from blocks import GcpTarget

        target = GcpTarget.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Google Cloud Target (imageport)"
    _block_type_slug = "imageport-gcp-target"
    _description = "Where images go in Google Cloud: project, zone, bucket, subnet, machine types."
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/10424e311932e31c477ac2b9ef3d53cefbaad708-250x250.png"
    )
    _documentation_url = HttpUrl(
        "https://cloud.google.com/compute/docs/import/import-existing-image"
    )

    credentials: GcpCredentials | None = Field(
        default=None,
        title="Google Cloud credentials",
        description="Credentials with a service account's key; leave empty to use the worker's "
        "own, which store nothing here.",
    )
    credentials_file: str = Field(
        default="",
        description="File on the worker with a workload identity federation configuration or a "
        "service account's key; empty takes the worker's own credentials.",
    )
    project: str = Field(
        pattern=r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$",
        description="Id of the project that everything is created in.",
    )
    region: str = Field(
        pattern=r"^[a-z]+-[a-z]+[0-9]+$", description="Region, for example europe-west3."
    )
    zone: str = Field(
        pattern=r"^[a-z]+-[a-z]+[0-9]+-[a-z]$",
        description="Zone of disks and machines, for example europe-west3-a.",
    )
    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$",
        description="Bucket that images are made from and engine jobs go through; in the region, "
        "with uniform access.",
    )
    prefix: str = Field(
        default=DEFAULT_PREFIX,
        pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$",
        description="Folder of the bucket that everything lies in.",
    )
    archive: Literal["segments", "stream"] = Field(
        default="segments",
        description="How a disk is brought: segments sends only what changed; stream sends one "
        "plain tar.gz each time, should Google refuse an archive that was composed.",
    )
    subnet: Subnet = Field(
        default="",
        title="Subnet of the engine VM",
        description="Subnet as projects/P/regions/R/subnetworks/S, with Private Google Access.",
    )
    boot_subnet: Subnet = Field(
        default="",
        title="Subnet of the one boot",
        description="Subnet for the one boot; empty takes the other.",
    )
    engine_image: str = Field(
        default="",
        pattern=r"^(projects/[^/]+/global/images/(family/)?[a-z][-a-z0-9]*)?$",
        description="Image of the engine VM, or a family; empty takes plain Debian.",
    )
    engine_machine_type: MachineType = Field(
        default="e2-standard-2", description="Type of the machine that composes the image."
    )
    boot_machine_type: MachineType = Field(
        default="n2-standard-2",
        description="Type of the machine of the one boot: the family that target devices will use.",
    )
    nic_type: Literal["GVNIC", "VIRTIO_NET"] = Field(
        default="GVNIC",
        title="Network adapter",
        description="Network adapter of the one boot: the one that target devices will have.",
    )
    engine_network_tags: tuple[NetworkTag, ...] = Field(
        default=(),
        description="Network tags of the engine VM, whose firewall rules you made; none makes "
        "rules for the run.",
    )
    isolated_network_tag: str = Field(
        default="",
        pattern=r"^([a-z]([-a-z0-9]{0,61}[a-z0-9])?)?$",
        description="Network tag of firewall rules that let nothing in or out of the one boot; "
        "empty makes such rules.",
    )
    boot_egress_cidrs: tuple[str, ...] = Field(
        default=(), description="Networks that the one boot may reach; none by default."
    )
    disk_type: str = Field(
        default="pd-balanced",
        pattern=r"^[a-z][a-z0-9-]*$",
        title="Type of the working disk",
        description="Disk type that the engine works on and the one boot starts from.",
    )
    kms_key: str = Field(
        default="",
        pattern=r"^(projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+(/cryptoKeyVersions/[0-9]+)?)?$",
        title="Encryption key",
        description="Key of Cloud KMS for objects, images and disks; empty is Google's own.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="Labels of your own, on everything that is made."
    )
    keep_stopped_vm: bool = Field(
        default=False,
        title="Keep a stopped machine",
        description="Leave a stopped machine with the prepared disk beside each prepared image, "
        "as machine catalogs want one.",
    )
    signing_account: str = Field(
        default="",
        pattern=r"^([^@\s]+@[^@\s]+)?$",
        description="Service account that signs URLs of engine jobs where the credentials have no "
        "key; empty is the account that they are for.",
    )
    private_service_connect: str = Field(
        default="",
        pattern=r"^([a-z][a-z0-9-]{0,61})?$",
        description="Name of your Private Service Connect endpoint for Google's APIs.",
    )
    endpoint_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="A laboratory that answers for every API of Google at one address.",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.credentials is not None and self.credentials_file:
            raise ValueError("Bad credentials: found a block and a file, needed one of them.")
        self.settings("check")
        return self

    @property
    def place(self) -> str:
        """Return cloud and region as the catalogue writes them, without the site."""
        return f"gcp/{self.region}"

    def settings(self, site: str, *, proxy: str = "", ca_bundle: str = "") -> GcpSettings:
        """Return the library's settings for one site; they hold no secret."""
        values = self.model_dump(exclude={"credentials", "credentials_file"})
        known = {name: values[name] for name in type(self).model_fields if name in values}
        return GcpSettings(**known, site=site, proxy=proxy, ca_bundle=ca_bundle)

    def grant_at(self, action: str) -> str:
        """Return to whom and where a missing permission has to be granted."""
        return gcp_grant(self.settings("check"), action)

    def google_credentials(self, settings: GcpSettings) -> Credentials:
        """Return what signs requests; tokens are refreshed as long as the run lasts."""
        block = self.credentials
        if block is not None and block.service_account_info is not None:
            return credentials_from_info(block.service_account_info.get_secret_value(), settings)
        if block is not None and block.service_account_file is not None:
            return credentials_from_file(block.service_account_file, settings)
        if self.credentials_file:
            return credentials_from_file(Path(self.credentials_file), settings)
        return credentials_from_worker(settings)

    def open_cloud(
        self, ledger: Ledger, run: str, *, site: str, proxy: str = "", ca_bundle: str = ""
    ) -> Cloud:
        """Return the cloud for one run; what it creates carries ``site`` and ``run`` as tags."""
        settings = self.settings(site, proxy=proxy, ca_bundle=ca_bundle)
        # Google's client library is large; a flow that only names this block needs none of it.
        make = cast("Callable[..., Cloud]", cloud_class("gcp"))
        return make(settings, self.google_credentials(settings), ledger, run)
