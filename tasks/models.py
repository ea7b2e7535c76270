"""What tasks take and give: small models that survive as JSON and hold no secret."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from imageport.state.records import Generation, Publication
from imageport.workflow.master import ExportWay, WantedMaster
from imageport.workflow.preflight import PreflightReport
from imageport.workflow.verify import VerifiedPublication


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Route(_Model):
    """From where to where: names of saved blocks, which any worker can load."""

    source: str = Field(description="Name of the source Site block; empty for target-only work.")
    target: str = Field(description="Name of the target Site block.")
    cloud: str = Field(description="The target block: its type's slug, a slash, its name.")
    place: str = Field(description="Cloud, region and target site, as the catalogue names them.")
    exports: bool = Field(
        default=False, description="Whether the image lies in the source site's export folder."
    )

    @property
    def cloud_name(self) -> str:
        """Return the name of the target's cloud; the options of prepare follow it."""
        return self.place.partition("/")[0]


class MasterRef(_Model):
    """A disk of a machine in a hypervisor, by names that any worker can look up."""

    site: str = Field(description="Name of the source Site block, which has the export folder.")
    connection: str = Field(description="The connection block: its type's slug, a slash, its name.")
    vm: str = Field(description="Inventory path of the machine.")
    image: str = Field(description="Name of the vDisk; empty takes the machine's.")
    snapshot: str = Field(description="Name of a snapshot; empty takes one and removes it again.")
    disk: str = Field(description="Label or key of the disk; empty is the boot disk.")
    way: ExportWay = Field(description="How the bytes come.")

    def wanted(self) -> WantedMaster:
        """Return the library's own words for it."""
        return WantedMaster(self.vm, self.image, self.snapshot, self.disk, self.way)


class MasterIdentity(_Model):
    """Which content the master image has now, as far as that can be told without a snapshot."""

    image: str
    key: str = Field(description="Of the named snapshot's disk; empty when one has to be taken.")
    exported_id: str = Field(description="Export of this very content; empty if none.")


class ExportResult(_Model):
    """An export by its catalogue id."""

    id: str
    image: str
    file_name: str
    size_bytes: int
    way: str
    run: str = Field(description="Run that wrote the file; another one than asked: nothing moved.")
    source_key: str = Field(default="", description="What the next stages know the content by.")
    figures: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, generation: Generation) -> Self:
        """Name an export."""
        return cls(
            id=generation.id,
            image=generation.image,
            file_name=generation.handle["file_name"],
            size_bytes=generation.size_bytes,
            way=str(generation.details.get("way", "")),
            run=str(generation.details.get("run", "")),
            source_key=generation.source_key,
            figures=dict(generation.details.get("stats", {})),
        )


class SourceIdentity(_Model):
    """Which content the source vDisk has now, and what exists of it at the target."""

    image: str
    source_key: str
    options_key: str
    engine_id: str
    size_bytes: int
    prepared_id: str = Field(description="Generation that fits and is usable; empty if none.")


class PreflightResult(_Model):
    """What preflight found."""

    image: str
    source_key: str
    size_bytes: int
    data_bytes: int
    guest: str
    pvs_target_version: str
    planned_changes: int
    estimate_usd: float
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, report: PreflightReport) -> Self:
        """Take the figures out of a report."""
        guest = report.inspection
        return cls(
            image=report.image,
            source_key=report.source_key,
            size_bytes=report.size_bytes,
            data_bytes=report.data_bytes,
            guest=f"{guest.product_name} {guest.build}".strip(),
            pvs_target_version=guest.pvs_target_version,
            planned_changes=report.planned_changes,
            estimate_usd=round(sum(line.usd for line in report.estimate), 2),
            warnings=report.warnings,
        )


class GenerationResult(_Model):
    """A generation by its catalogue id, with the figures that a person wants to see."""

    id: str
    image: str
    role: str
    size_bytes: int
    snapshot_id: str
    run: str = Field(default="", description="Run that made it; another one: nothing moved.")
    figures: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, generation: Generation) -> Self:
        """Name a generation."""
        return cls(
            id=generation.id,
            image=generation.image,
            role=generation.role.value,
            size_bytes=generation.size_bytes,
            snapshot_id=generation.handle.get("snapshot_id", ""),
            run=str(generation.details.get("run", "")),
            figures=dict(generation.details.get("stats", {})),
        )


class PublicationResult(_Model):
    """A vDisk in a store."""

    store: str
    file_name: str
    size_bytes: int
    image_digest: str
    already_there: bool

    @classmethod
    def of(cls, publication: Publication, *, already_there: bool) -> Self:
        """Name a publication."""
        return cls(
            store=publication.store,
            file_name=publication.file_name,
            size_bytes=publication.size_bytes,
            image_digest=publication.image_digest,
            already_there=already_there,
        )


class VerificationResult(_Model):
    """What was read back from the store."""

    file_name: str
    level: str
    blocks_checked: int

    @classmethod
    def of(cls, verified: VerifiedPublication) -> Self:
        """Take over what verification found."""
        return cls(
            file_name=verified.file_name,
            level=verified.level,
            blocks_checked=verified.blocks_checked,
        )
