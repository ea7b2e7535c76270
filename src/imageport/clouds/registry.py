"""The clouds this product knows: name → where the implementation is → what to install for it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from imageport.cloud import Cloud
from imageport.errors import InputError, MissingTool


@dataclass(frozen=True, slots=True)
class CloudEntry:
    """One implementation of `imageport.cloud.Cloud`."""

    module: str
    class_name: str
    install: str
    """The Python packages that bring the cloud's own client library."""


CLOUDS: dict[str, CloudEntry] = {
    "aws": CloudEntry("imageport.clouds.aws.cloud", "AwsCloud", "boto3"),
    "azure": CloudEntry(
        "imageport.clouds.azure.cloud",
        "AzureCloud",
        "azure-mgmt-compute azure-storage-blob azure-identity",
    ),
    "memory": CloudEntry("imageport.clouds.memory", "MemoryCloud", ""),
}


def cloud_class(name: str) -> type[Cloud]:
    """Return the class of a cloud, imported only now.

    Raises:
        InputError: no such cloud.
        MissingTool: its client library is not installed.
    """
    entry = CLOUDS.get(name)
    if entry is None:
        raise InputError(f"Bad cloud: found '{name}', needed one of {', '.join(sorted(CLOUDS))}.")
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        raise MissingTool(
            f"Cannot use cloud '{name}': the Python package '{error.name}' is not installed.",
            hint=f"Install it: pip install {entry.install}",
        ) from error
    found: type[Cloud] = getattr(module, entry.class_name)
    return found
