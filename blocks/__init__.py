"""Where and who: shares, stores, clouds and sites as Prefect blocks."""

from blocks.shares import SmbShare
from blocks.sites import Site
from blocks.stores import PvsStore
from blocks.targets import AwsTarget

BLOCKS = (SmbShare, PvsStore, AwsTarget, Site)
"""Every block type of this project, in the order in which they nest."""

__all__ = ["BLOCKS", "AwsTarget", "PvsStore", "Site", "SmbShare"]
