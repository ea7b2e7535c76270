"""Where and who: shares, stores, clouds and sites as Prefect blocks."""

from blocks.aws_target import AwsTarget
from blocks.azure_credentials import AzureCredentials
from blocks.azure_target import AzureTarget
from blocks.shares import SmbShare
from blocks.sites import Site
from blocks.stores import PvsStore
from blocks.targets import TARGETS, CloudTarget

BLOCKS = (SmbShare, PvsStore, AwsTarget, AzureCredentials, AzureTarget, Site)
"""Every block type of this project, in the order in which they nest."""

__all__ = [
    "BLOCKS",
    "TARGETS",
    "AwsTarget",
    "AzureCredentials",
    "AzureTarget",
    "CloudTarget",
    "PvsStore",
    "Site",
    "SmbShare",
]
