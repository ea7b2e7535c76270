# References: Azure RBAC, "Understand scope"; AWS IAM User Guide, "Identity-based policies"; Google
# Cloud IAM, "Resource hierarchy".
"""Where an action that is missing has to be granted."""

from __future__ import annotations

from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.gcp.settings import GcpSettings

RESOURCE_MANAGER = "cloudresourcemanager.googleapis.com"
"""An API, not a permission: it has to be on in the project for the self-test to ask."""


def aws_grant(action: str) -> str:
    """Return whom to grant an AWS action: identities, not resources, carry all that we need."""
    del action  # the same for every one
    return "the worker's role or user"


def azure_grant(settings: AzureSettings, action: str) -> str:
    """Return to whom and at which scope to grant an Azure action.

    Nearly all is asked inside the resource group; what lies elsewhere is granted at the resource
    itself, and what belongs to no resource at the subscription.
    """
    scope = settings.group_id
    lower = action.lower()
    for part, at in (
        ("microsoft.storage/", settings.job_container_url),
        ("/virtualnetworks/", settings.boot_subnet_id or settings.subnet_id),
        ("/diskencryptionsets/", settings.disk_encryption_set_id),
        ("/diskaccesses/", settings.disk_access_id),
        ("microsoft.compute/images/", settings.engine_image_id),
        ("microsoft.compute/galleries/", settings.engine_image_id),
        ("microsoft.compute/skus/", f"/subscriptions/{settings.subscription_id}"),
        ("microsoft.compute/locations/", f"/subscriptions/{settings.subscription_id}"),
    ):
        if part in lower and at:
            scope = at
            break
    return f"the worker's identity at {scope}"


def gcp_grant(settings: GcpSettings, permission: str) -> str:
    """Return to whom and at which resource to grant a Google Cloud permission.

    Nearly all is asked in the project; objects belong to the bucket, a shared subnet and an image
    of another project to theirs, and signing to the account that signs.
    """
    if permission == RESOURCE_MANAGER:
        return f"project '{settings.project}' by enabling that API, if its id is right"
    at = f"project '{settings.project}'"
    if permission.startswith("storage."):
        at = f"bucket '{settings.bucket}'"
    elif permission.startswith("iam."):
        at = f"service account '{settings.signing_account or 'of the worker'}'"
    elif permission == "compute.firewalls.list" and settings.isolated_network_tag:
        # Where the one boot's network is shared, its rules are looked at in its own project.
        projects = dict.fromkeys((settings.project, settings.boot_network_project))
        at = " and ".join(f"project '{item}'" for item in projects)
    elif permission.startswith("compute.subnetworks."):
        at = (
            " and ".join(dict.fromkeys(filter(None, (settings.subnet, settings.boot_subnet)))) or at
        )
    return f"the worker's identity at {at}"
