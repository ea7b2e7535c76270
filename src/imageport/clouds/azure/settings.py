# References: Azure national clouds, "Endpoints"; managed disks, "Private Links for import/export".
"""Where and how this product works in one Azure subscription; no secret is ever part of it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from imageport.clouds.settings_checks import refuse_contradictions, require_set


@dataclass(frozen=True, slots=True)
class AzureEnvironment:
    """The addresses of one Azure cloud: where to sign in, to manage and to store."""

    authority_host: str
    resource_manager: str
    management_scope: str
    storage_suffix: str
    """A storage account's blob endpoint is ``https://ACCOUNT.blob.SUFFIX``."""


ENVIRONMENTS: Final = {
    "public": AzureEnvironment(
        "login.microsoftonline.com",
        "https://management.azure.com",
        "https://management.azure.com/.default",
        "core.windows.net",
    ),
    "usgovernment": AzureEnvironment(
        "login.microsoftonline.us",
        "https://management.usgovcloudapi.net",
        "https://management.core.usgovcloudapi.net/.default",
        "core.usgovcloudapi.net",
    ),
    "china": AzureEnvironment(
        "login.chinacloudapi.cn",
        "https://management.chinacloudapi.cn",
        "https://management.chinacloudapi.cn/.default",
        "core.chinacloudapi.cn",
    ),
}
NETWORK_ACCESS_POLICIES: Final = ("AllowAll", "AllowPrivate")
"""DenyAll would refuse the very grants that uploading and publishing need."""
_ARM_ID = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/(?P<type>[^/]+/[^/]+)/[^/]+"
    r"(?P<child>/[^/]+/[^/]+)?",
    re.IGNORECASE,
)
_IMAGE_ID = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft\.Compute/"
    r"(images/[^/]+|galleries/[^/]+/images/[^/]+/versions/[^/]+)",
    re.IGNORECASE,
)
_SUBSCRIPTION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LOCATION = re.compile(r"[a-z0-9]+")
_IDS: Final = {
    "subnet_id": "Microsoft.Network/virtualNetworks",
    "boot_subnet_id": "Microsoft.Network/virtualNetworks",
    "engine_network_security_group_id": "Microsoft.Network/networkSecurityGroups",
    "isolated_network_security_group_id": "Microsoft.Network/networkSecurityGroups",
    "disk_encryption_set_id": "Microsoft.Compute/diskEncryptionSets",
    "disk_access_id": "Microsoft.Compute/diskAccesses",
}


@dataclass(frozen=True, slots=True)
class AzureSettings:
    """One subscription, resource group and network; credentials come as a token credential alone.

    Everything is made in ``resource_group``. Empty network security groups mean: make one for the
    run and delete it afterwards. ``boot_subnet_id`` empty is ``subnet_id``. Ids are full ARM ids.
    """

    subscription_id: str
    resource_group: str
    location: str
    """The short name, ``germanywestcentral``."""
    site: str = ""
    zone: str = ""
    """Availability zone of working disks and machines, ``1`` to ``3``; empty is no zone."""
    environment: str = "public"
    job_container_url: str = ""
    """Blob container for engine jobs, ``https://ACCOUNT.blob.core.windows.net/CONTAINER``."""
    subnet_id: str = ""
    boot_subnet_id: str = ""
    engine_image_id: str = ""
    """A managed image, or one version of an image in a gallery: the same inputs, the same engine.
    Empty takes plain Debian from the marketplace."""
    engine_vm_size: str = "Standard_D2s_v5"
    boot_vm_size: str = "Standard_D2s_v5"
    """The series that target devices will use: its network adapter is the one that is bound."""
    engine_network_security_group_id: str = ""
    isolated_network_security_group_id: str = ""
    upload_disk_sku: str = "Standard_LRS"
    """An upload runs at the speed of Standard HDD whatever this says, so the cheapest will do."""
    disk_sku: str = "StandardSSD_LRS"
    disk_encryption_set_id: str = ""
    network_access_policy: str = "AllowAll"
    disk_access_id: str = ""
    boot_egress_cidrs: tuple[str, ...] = ()
    """Destinations that the one boot may reach; empty is none."""
    keep_parent: bool = True
    expires_seconds: float = 6 * 3600.0
    """How long a resource outlives the last sign of life of its run."""
    snapshot_deadline_seconds: float = 2 * 3600.0
    endpoint_url: str = ""
    """Another address of Azure Resource Manager: a private one, or a laboratory on this machine."""
    ca_bundle: str = ""
    proxy: str = field(default="", repr=False)
    """May hold a user and a password, so it is never shown."""

    def __post_init__(self) -> None:
        """Refuse contradictions, all at once; what is missing shows when it is needed."""
        problems = [
            *self._bad_place(),
            *self._bad_access(),
            *self._bad_ids(),
            *self._bad_addresses(),
        ]
        refuse_contradictions("Azure", problems)

    @property
    def cloud(self) -> AzureEnvironment:
        """Return the addresses of the settings' Azure cloud."""
        return ENVIRONMENTS[self.environment]

    @property
    def resource_manager(self) -> str:
        """Return the base URL of Azure Resource Manager, without a slash at its end."""
        return (self.endpoint_url or self.cloud.resource_manager).rstrip("/")

    @property
    def scope(self) -> str:
        """Return what `list_ours` lists, in lower case: ids compare without regard to case."""
        return f"azure/{self.location}/{self.subscription_id}/{self.resource_group}".lower()

    @property
    def image_in_gallery(self) -> bool:
        """Tell whether the engine image is a gallery's: another kind of resource."""
        return "/galleries/" in self.engine_image_id.lower()

    @property
    def group_id(self) -> str:
        """Return the full id of the resource group, always in the same spelling."""
        names = self.subscription_id.lower(), self.resource_group.lower()
        return "/subscriptions/{}/resourceGroups/{}".format(*names)

    def require(self, *names: str) -> None:
        """Raise `InputError` naming every one of ``names`` that is empty."""
        require_set("Azure", self, names)

    def _bad_place(self) -> list[str]:
        names = ("subscription_id", "resource_group", "location")
        problems = [f"{name} is missing" for name in names if not getattr(self, name)]
        if self.subscription_id and not _SUBSCRIPTION.fullmatch(self.subscription_id):
            problems.append(f"subscription_id '{self.subscription_id}' is no GUID")
        if self.location and not _LOCATION.fullmatch(self.location):
            problems.append(f"location '{self.location}' is no short name like germanywestcentral")
        if self.environment not in ENVIRONMENTS:
            problems.append(
                f"environment '{self.environment}' is none of {', '.join(ENVIRONMENTS)}"
            )
        if self.zone not in {"", "1", "2", "3"}:
            problems.append(f"zone '{self.zone}' is none of 1, 2, 3")
        return problems

    def _bad_access(self) -> list[str]:
        problems = []
        if self.network_access_policy not in NETWORK_ACCESS_POLICIES:
            allowed = ", ".join(NETWORK_ACCESS_POLICIES)
            found = self.network_access_policy
            problems.append(f"network_access_policy '{found}' is none of {allowed}")
        if self.network_access_policy == "AllowPrivate" and not self.disk_access_id:
            problems.append("network_access_policy AllowPrivate needs disk_access_id")
        if self.network_access_policy == "AllowAll" and self.disk_access_id:
            problems.append("disk_access_id needs network_access_policy AllowPrivate")
        return problems

    def _bad_ids(self) -> list[str]:
        problems = []
        for name, kind in _IDS.items():
            value = getattr(self, name)
            found = _ARM_ID.fullmatch(value)
            child = name.endswith("subnet_id")
            fits = found and found["type"].lower() == kind.lower() and bool(found["child"]) is child
            if value and not fits:
                problems.append(f"{name} '{value}' is no id of {kind}{'/subnets' if child else ''}")
        image = self.engine_image_id
        if image and not _IMAGE_ID.fullmatch(image):
            problems.append(
                f"engine_image_id '{image}' is no id of Microsoft.Compute/images or "
                "Microsoft.Compute/galleries/images/versions"
            )
        return problems

    def _bad_addresses(self) -> list[str]:
        problems = []
        for name in ("endpoint_url", "job_container_url"):
            value = getattr(self, name)
            parts = urlsplit(value)
            if parts.query or parts.fragment or parts.username:
                # A signature or password belongs into no setting, and not into this message either.
                problems.append(f"{name} has a query or a login")
            elif value and not secure(value):
                problems.append(f"{name} '{value}' is neither https nor on this machine")
        problems += self._bad_container()
        for cidr in self.boot_egress_cidrs:
            try:
                ipaddress.ip_network(cidr)
            except ValueError:
                problems.append(f"boot_egress_cidrs '{cidr}' is no network")
        return problems

    def _bad_container(self) -> list[str]:
        url = self.job_container_url
        if not url:
            return []
        problems = []
        path = urlsplit(url).path.strip("/").split("/")
        # An emulator has the account in the path, Azure in the name of the host.
        if "" in path or len(path) != (2 if is_loopback(url) else 1):
            problems.append("job_container_url names no container, or more than one")
        host = urlsplit(url).hostname or ""
        for name, cloud in ENVIRONMENTS.items():
            if name != self.environment and host.endswith(f".{cloud.storage_suffix}"):
                problems.append(f"job_container_url lies in environment '{name}'")
        return problems


def secure(url: str) -> bool:
    """Tell whether tokens and data may go to ``url``: by https, or to a laboratory on loopback."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))


def is_loopback(url: str) -> bool:
    """Tell whether ``url`` names this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
