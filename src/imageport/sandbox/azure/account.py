# References: Azure Resource Manager, "Resource ids"; Azure Storage, "Path-style URIs" (Azurite).
"""The one subscription that the emulator knows, and what exists in it from the start."""

from __future__ import annotations

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
RESOURCE_GROUP = "imageport-lab"
LOCATION = "germanywestcentral"
TOKEN = "imageport-sandbox-token"  # noqa: S105 - the only bearer that the emulator accepts
JOB_ACCOUNT = "imageportjobs"
JOB_CONTAINER = "jobs"

GROUP_ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}"
VIRTUAL_NETWORK_ID = f"{GROUP_ID}/providers/Microsoft.Network/virtualNetworks/lab"
SUBNET_ID = f"{VIRTUAL_NETWORK_ID}/subnets/machines"
BOOT_SUBNET_ID = f"{VIRTUAL_NETWORK_ID}/subnets/boots"
"""A second subnet, for those who boot disks apart from engine machines."""
ENGINE_IMAGE_ID = f"{GROUP_ID}/providers/Microsoft.Compute/images/imageport-engine"
"""An operator's own engine image; whatever is launched from it runs its custom data."""
DISK_ACCESS_ID = f"{GROUP_ID}/providers/Microsoft.Compute/diskAccesses/lab"
DISK_ENCRYPTION_SET_ID = f"{GROUP_ID}/providers/Microsoft.Compute/diskEncryptionSets/lab"


def job_container_url(endpoint: str) -> str:
    """Return the URL of the container for engine jobs."""
    return f"{endpoint}/{JOB_ACCOUNT}/{JOB_CONTAINER}"
