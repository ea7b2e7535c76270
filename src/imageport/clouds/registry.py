"""The clouds this product knows: name → where the implementation is → what to install for it."""

from __future__ import annotations

from imageport.cloud import Cloud
from imageport.implementations import Implementation, implementation

CLOUDS: dict[str, Implementation] = {
    "aws": Implementation("imageport.clouds.aws.cloud", "AwsCloud", "boto3"),
    "azure": Implementation(
        "imageport.clouds.azure.cloud",
        "AzureCloud",
        "azure-mgmt-compute azure-storage-blob azure-identity",
    ),
    "gcp": Implementation(
        "imageport.clouds.gcp.cloud",
        "GcpCloud",
        "google-cloud-compute google-cloud-storage isal",
    ),
    "memory": Implementation("imageport.clouds.memory", "MemoryCloud", ""),
}


def cloud_class(name: str) -> type[Cloud]:
    """Return the class of a cloud; errors are those of `implementation`."""
    found: type[Cloud] = implementation("cloud", name, CLOUDS)
    return found
