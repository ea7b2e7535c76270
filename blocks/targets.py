"""The target clouds: one block each, with exactly typed credentials.

A union of credential blocks inside a block would come back as the wrong class and show secrets;
where a flow takes several clouds, the union stands at the flow's parameter.
"""

from __future__ import annotations

from blocks.aws_target import AwsTarget
from blocks.azure_target import AzureTarget
from blocks.gcp_target import GcpTarget

CloudTarget = AwsTarget | AzureTarget | GcpTarget
"""What a flow's ``cloud`` may be: Prefect loads a saved block as its own class."""

TARGETS: tuple[type[CloudTarget], ...] = (AwsTarget, AzureTarget, GcpTarget)
