"""What a finished run did: where the vDisk is, what was changed in it, which bytes moved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imageport.compose.contract import EngineReport
from imageport.compose.report_page import report_markdown
from imageport.model import MIB, GenerationRole, TransferStats
from imageport.state.records import Generation, Publication
from imageport.state.store import StateStore


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One image at one target, as the catalogue has it after a run."""

    prepared: Generation
    uploaded: Generation | None
    publication: Publication
    moved: bool
    """False when the run found everything current."""
    exported: Generation | None = None
    """The vDisk that came out of a hypervisor, when it did."""

    @property
    def composed(self) -> EngineReport:
        """Return the engine's report of what it changed."""
        return EngineReport.from_json(self.prepared.details["composed"])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json``."""
        return {
            "published": f"{self.publication.store}/{self.publication.file_name}",
            "image_digest": self.publication.image_digest,
            "verified": self.publication.verified,
            "nothing_had_to_move": not self.moved,
            "changes": dict(Counter(change.step for change in self.composed.changes)),
            "stages": {name: stats.as_dict() for name, stats in self.stages().items()},
            "prepared": self.prepared.id,
            "snapshot": self.prepared.handle.get("snapshot_id", ""),
        }

    def stages(self) -> dict[str, TransferStats]:
        """Return the figures of the stages that moved bytes in this run; empty if none did."""
        if not self.moved:
            return {}
        run = self.prepared.details.get("run")
        found = {}
        if self.exported is not None and self.exported.details.get("run") == run:
            found["export"] = TransferStats(**self.exported.details.get("stats", {}))
        if self.uploaded is not None and self.uploaded.details.get("run") == run:
            found["upload"] = TransferStats(**self.uploaded.details.get("stats", {}))
        found["publish"] = TransferStats(**self.publication.stats)
        return found

    def lines(self) -> list[str]:
        """Return the summary for people."""
        publication = self.publication
        return [
            f"Published    {publication.store}/{publication.file_name}",
            f"{'':<12} {publication.size_bytes // MIB} MiB on the share; {publication.verified}",
            *self._export_lines(),
            *self._change_lines(),
            *self._byte_lines(),
        ]

    def _export_lines(self) -> list[str]:
        if self.exported is None:
            return []
        publication, details = self.exported.publications[-1], self.exported.details
        return [
            f"Exported     {publication.store}/{publication.file_name}",
            f"{'':<12} from {details['frozen']['vm']}, {details['way']}; {details['read_back']}",
        ]

    def _change_lines(self) -> list[str]:
        counts = Counter(change.step for change in self.composed.changes)
        total = sum(counts.values())
        named = [f"             {number:>4}  {step}" for step, number in sorted(counts.items())]
        return [f"Changed      {total} places in the image, by these steps:", *named]

    def _byte_lines(self) -> list[str]:
        if not self.moved:
            return [
                "Bytes        nothing had to move: the image is unchanged and published already"
            ]
        lines: list[str] = []
        for name, stats in self.stages().items():
            head = "Bytes" if not lines else ""
            lines.append(f"{head:<12} {name}: {_figures(stats)}")
        return lines


def summarise(
    state: StateStore, image: str, target: str, *, moved: bool, exports: str = ""
) -> RunSummary | None:
    """Return the newest publication of an image at a target; None when there is none.

    ``exports`` is what the catalogue calls the place of a site's exports, where the image was one.
    """
    prepared = [
        item
        for item in state.catalogue.list(image=image, target=target, role=GenerationRole.PREPARED)
        if item.publications
    ]
    if not prepared:
        return None
    newest = prepared[-1]
    uploads = state.catalogue.list(image=image, target=target, role=GenerationRole.UPLOADED)
    uploaded = next((item for item in uploads if item.id == newest.parent_id), None)
    exported = _newest_export(state, image, exports) if exports else None
    return RunSummary(newest, uploaded, newest.publications[-1], moved, exported)


def _newest_export(state: StateStore, image: str, exports: str) -> Generation | None:
    found = state.catalogue.list(image=image, target=exports, role=GenerationRole.SOURCE)
    return found[-1] if found else None


def write_report(summary: RunSummary, folder: Path) -> Path:
    """Write the full change report as a page and return where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{summary.prepared.image}-changes.md"
    path.write_text(report_markdown(summary.composed))
    return path


def _figures(stats: TransferStats) -> str:
    text = (
        f"read {stats.bytes_read // MIB} MiB, sent {stats.bytes_sent // MIB} MiB, "
        f"skipped {stats.bytes_skipped // MIB} MiB in {stats.seconds:.0f} s"
    )
    return text + (f", {stats.retries} retries" if stats.retries else "")
