"""Where images are brought to, as run forms that take several places show it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from blocks import CloudTarget, Site


class Destination(BaseModel):
    """One place that images are brought to."""

    model_config = ConfigDict(extra="forbid")

    site: Site = Field(title="Target site", description="Site whose vDisk store is published to.")
    cloud: CloudTarget = Field(title="Cloud", description="Account and region to prepare in.")
    suffix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="What the vDisk's name ends in there, for example -azure; needed where two "
        "destinations share a store.",
    )
