"""Where images go in Azure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self, cast

from azure.core.credentials import TokenCredential
from pydantic import Field, HttpUrl, StringConstraints, model_validator

from blocks._block import ImageportBlock
from blocks.azure_credentials import AZURE_LOGO, AzureCredentials
from imageport.cloud import Cloud
from imageport.clouds.azure.credentials import credential_for
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.azure.worker_login import worker_credential
from imageport.clouds.registry import cloud_class
from imageport.doctor.grants import azure_grant
from imageport.state.ledger import Ledger

ArmId = Annotated[str, StringConstraints(pattern=r"^(/subscriptions/[^\s?#]+)?$")]
VmSize = Annotated[str, StringConstraints(pattern=r"^(Standard|Basic)_[A-Za-z0-9_-]+$")]
_SUBSCRIPTION = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_RESOURCE_GROUP = r"^[-\w._()]{0,89}[-\w_()]$"
"""Source: Azure naming rules, Microsoft.Resources/resourcegroups: 1-90 characters, no last dot."""


class AzureTarget(ImageportBlock):
    """An Azure subscription, resource group, region and network that images are brought to.

    Without credentials the worker's own chain finds them: environment, federation, managed
    identity.

    Example:
        Load a saved target:
        ```python
        from blocks import AzureTarget

        target = AzureTarget.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Azure Target (imageport)"
    _block_type_slug = "imageport-azure-target"
    _description = "Where images go in Azure: resource group, subnet, storage and machine sizes."
    _logo_url = AZURE_LOGO
    _documentation_url = HttpUrl(
        "https://learn.microsoft.com/azure/virtual-machines/windows/disks-upload-vhd-to-managed-disk-powershell"
    )

    credentials: AzureCredentials | None = Field(
        default=None,
        title="Azure credentials",
        description="Credentials; leave empty to use the worker's own: environment, federation or "
        "managed identity.",
    )
    environment: Literal["public", "usgovernment", "china"] = Field(
        default="public", description="Which Azure: public, US Government or China (21Vianet)."
    )
    subscription_id: str = Field(
        pattern=_SUBSCRIPTION, title="Subscription", description="Id of the subscription."
    )
    resource_group: str = Field(
        pattern=_RESOURCE_GROUP,
        description="Resource group that everything is created in; it must exist.",
    )
    location: str = Field(
        pattern=r"^[a-z0-9]+$",
        title="Region",
        description="Region by its short name, for example germanywestcentral.",
    )
    zone: str = Field(
        default="",
        pattern=r"^[1-3]?$",
        title="Availability zone",
        description="Availability zone of disks and machines: 1, 2 or 3; empty is none.",
    )
    subnet_id: ArmId = Field(
        default="",
        title="Subnet of the engine VM",
        description="Full resource id of the subnet; its machines must reach the job container.",
    )
    boot_subnet_id: ArmId = Field(
        default="",
        title="Subnet of the one boot",
        description="Full resource id of the subnet for the one boot; empty takes the other.",
    )
    job_container_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#]+)?$",
        title="Job container",
        description="Blob container for engine jobs and reports, for example "
        "https://account.blob.core.windows.net/imageport.",
    )
    engine_image_id: ArmId = Field(
        default="",
        description="Image of the engine VM, by its full resource id; empty takes plain Debian.",
    )
    engine_vm_size: VmSize = Field(
        default="Standard_D2s_v5",
        title="Engine VM size",
        description="Size of the machine that composes the image.",
    )
    boot_vm_size: VmSize = Field(
        default="Standard_D2s_v5",
        title="Boot VM size",
        description="Size of the machine of the one boot: the family that target devices will use.",
    )
    engine_network_security_group_id: ArmId = Field(
        default="",
        description="Network security group of the engine VM; empty makes one for the run.",
    )
    isolated_network_security_group_id: ArmId = Field(
        default="",
        description="Network security group of the one boot that lets nothing out; empty makes "
        "one.",
    )
    boot_egress_cidrs: tuple[str, ...] = Field(
        default=(), description="Networks that the one boot may reach; none by default."
    )
    upload_disk_sku: str = Field(
        default="Standard_LRS",
        pattern=r"^[A-Za-z0-9]+_(LRS|ZRS)$",
        title="Type of the upload disk",
        description="Disk type that is uploaded to; it lives for the length of an upload.",
    )
    disk_sku: str = Field(
        default="StandardSSD_LRS",
        pattern=r"^[A-Za-z0-9]+_(LRS|ZRS)$",
        title="Type of the working disk",
        description="Disk type that the engine works on and the one boot starts from.",
    )
    disk_encryption_set_id: ArmId = Field(
        default="",
        title="Disk encryption set",
        description="Encryption set with your own key; empty is the platform's key.",
    )
    network_access_policy: Literal["AllowAll", "AllowPrivate"] = Field(
        default="AllowAll",
        description="Who reaches the data of disks and snapshots: everyone with a signed URL, or "
        "private endpoints alone.",
    )
    disk_access_id: ArmId = Field(
        default="",
        title="Disk access",
        description="Disk access resource of your private endpoints; needed with AllowPrivate.",
    )
    endpoint_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Another endpoint of Azure Resource Manager: private link or laboratory.",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        self.settings("check")
        return self

    @property
    def place(self) -> str:
        """Return cloud and region as the catalogue writes them, without the site."""
        return f"azure/{self.location}"

    def settings(self, site: str, *, proxy: str = "", ca_bundle: str = "") -> AzureSettings:
        """Return the library's settings for one site; they hold no secret."""
        values = self.model_dump(exclude={"credentials"})
        known = {name: values[name] for name in type(self).model_fields if name in values}
        return AzureSettings(**known, site=site, proxy=proxy, ca_bundle=ca_bundle)

    def grant_at(self, action: str) -> str:
        """Return to whom and where a missing action has to be granted."""
        return azure_grant(self.settings("check"), action)

    def credential(self, settings: AzureSettings) -> TokenCredential:
        """Return what signs requests; tokens are refreshed as long as the run lasts."""
        if self.credentials is None:
            return worker_credential(settings)
        return credential_for(self.credentials.login(settings))

    def open_cloud(
        self, ledger: Ledger, run: str, *, site: str, proxy: str = "", ca_bundle: str = ""
    ) -> Cloud:
        """Return the cloud for one run; what it creates carries ``site`` and ``run`` as tags."""
        settings = self.settings(site, proxy=proxy, ca_bundle=ca_bundle)
        # Azure's client library is large; a flow that only names this block needs none of it.
        make = cast("Callable[..., Cloud]", cloud_class("azure"))
        return make(settings, self.credential(settings), ledger, run)
