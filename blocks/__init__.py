"""Where and who: shares, stores, clouds and sites as Prefect blocks."""

from blocks.aws_target import AwsTarget
from blocks.azure_credentials import AzureCredentials
from blocks.azure_target import AzureTarget
from blocks.gcp_target import GcpTarget
from blocks.hypervisors import (
    CONNECTIONS,
    HypervisorConnection,
    VsphereConnection,
    XenServerConnection,
)
from blocks.shares import SmbShare
from blocks.sites import Site
from blocks.stores import PvsStore
from blocks.targets import TARGETS, CloudTarget

BLOCKS = (
    SmbShare,
    PvsStore,
    AwsTarget,
    AzureCredentials,
    AzureTarget,
    GcpTarget,
    VsphereConnection,
    XenServerConnection,
    Site,
)
"""Every block type of this project, in the order in which they nest."""

__all__ = [
    "BLOCKS",
    "CONNECTIONS",
    "TARGETS",
    "AwsTarget",
    "AzureCredentials",
    "AzureTarget",
    "CloudTarget",
    "GcpTarget",
    "HypervisorConnection",
    "PvsStore",
    "Site",
    "SmbShare",
    "VsphereConnection",
    "XenServerConnection",
]
