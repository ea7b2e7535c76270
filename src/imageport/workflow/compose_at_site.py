"""Composing at the site: over the vDisk, before anything is uploaded, so that U is composed.

The vDisk is read and never written; what changes lies in a file of this worker that goes with it.
A run that was killed composes again, which is quick; the long upload goes on where it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from imageport.citrix.vdisk_store import VdiskStore
from imageport.compose.build_engine import engine_id
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineReport
from imageport.compose.site_engine import overlay_over
from imageport.errors import SourceChanged, StateError
from imageport.formats.gpt import read_layout
from imageport.formats.overlay_disk import OverlayDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES
from imageport.state.records import Generation
from imageport.transfer.manifest import Manifest
from imageport.transfer.pipeline import Doubt
from imageport.workflow.checkpoints import Checkpoint
from imageport.workflow.choices import EnginePlace, PrepareChoices
from imageport.workflow.engine_outcome import require_ok
from imageport.workflow.facts import composed_key, opened_source, options_key
from imageport.workflow.known_digests import known_digests, outside_of
from imageport.workflow.place import Workplace
from imageport.workflow.preflight import payload_sha256
from imageport.workflow.site_job import run_at_site
from imageport.workflow.upload import Content, bring_up, current_upload


@dataclass(frozen=True, slots=True)
class SiteComposing:
    """What is composed: the content that preflight saw, and what the engine is asked to do."""

    source_key: str
    choices: PrepareChoices
    payload: Path | None = None
    """A zip of the operator's files."""


def compose_and_upload(
    place: Workplace,
    store: VdiskStore,
    vdisk: str,
    composing: SiteComposing,
    *,
    accept_lock: bool = False,
    keep_parent: bool = True,
) -> Generation:
    """Return generation U of the vDisk as composed here, with the report in its details.

    An unchanged vDisk with the same options, operator's files and engine is neither composed nor
    sent again. What is refused or would not boot is not uploaded.

    Raises:
        GuestRefused, VerdictFailed, EngineFailed: see `require_ok`; nothing was uploaded.
        SourceChanged: the vDisk is no longer the one that preflight saw.
        ShareFull: this worker has no room for what changes.
        LeaseHeld: another run works on this image and target.
    """
    with opened_source(store, vdisk, accept_lock=accept_lock) as (facts, disk):
        if facts.source_key != composing.source_key:
            raise SourceChanged(
                f"Cannot compose '{vdisk}': its content is not the one that preflight saw."
            )
        payload_digest = payload_sha256(composing.payload)
        wanted = options_key(composing.choices, payload_digest, engine_id())
        key = composed_key(facts.source_key, wanted)
        content = Content(facts.image, key, keep_parent)
        with place.holding(facts.image) as lease:
            touched = _Touched(place, content)
            found = current_upload(place, content)
            if found is not None:
                touched.clear()
                return found
            held = replace(place, cancelled=place.asked_under(lease))
            with overlay_over(disk, key=key) as overlay:
                report = _composed(held, overlay, composing, payload_digest)
                require_ok(report, facts.image)
                details = {
                    "engine": EnginePlace.SITE.value,
                    "composed": report.to_json(),
                    "composed_from": facts.source_key,
                    "options_key": wanted,
                }
                with touched.noted(overlay) as doubt:
                    known = _known_beside(place, disk, overlay)
                    content = replace(content, details=details, doubt=doubt, known=known)
                    return bring_up(held, overlay, content)


def _composed(
    place: Workplace, overlay: OverlayDisk, composing: SiteComposing, payload_digest: str
) -> EngineReport:
    job = EngineJob(
        action=Action.COMPOSE,
        disk=EngineDisk(path="", disk_guid=read_layout(overlay).disk_guid),
        options=composing.choices.engine,
        run=place.run,
        payload_sha256=payload_digest,
    )
    return run_at_site(place, overlay, job, composing.choices, composing.payload)


def _known_beside(place: Workplace, disk: VirtualDisk, overlay: OverlayDisk) -> Manifest | None:
    """Return what is known of the blocks that composing left as they were."""
    known = known_digests(place.state, disk)
    if known is None:
        return None
    return outside_of(known, overlay.written_ranges(), overlay.size_bytes)


class _Touched:
    """Which blocks composing wrote to, in this run and in those that were killed before it.

    Two runs of the engine differ in the times that NTFS notes and in where a file system puts
    things. So of what a killed run uploaded, two kinds of blocks are in doubt, and no others: what
    its composing wrote, and what this one's wrote, which it may have sent as they were before.
    """

    def __init__(self, place: Workplace, content: Content) -> None:
        work = ("composed-blocks", content.image, place.target, content.source_key)
        self._checkpoint = Checkpoint(place.state.folder, *work)

    @contextlib.contextmanager
    def noted(self, overlay: OverlayDisk) -> Iterator[Doubt]:
        """Write this run's blocks down before they are sent; what is in doubt becomes DATA.

        They stay noted for as long as there may be a journal of an upload of them.
        """
        saved = self._checkpoint.load()
        earlier, sealed = _blocks(saved), str(saved.get("sealed", ""))
        now: set[int] = set()
        for offset, length in overlay.written_ranges():
            now.update(range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)))
        runs = _runs(earlier | now)
        self._checkpoint.save({"runs": runs, "sealed": sealed})
        # Nothing was sent before the first run noted its blocks: what it wrote is not in doubt.
        doubted = frozenset(earlier | now if earlier else ())
        for index in sorted(doubted):
            start = index * BLOCK_BYTES
            overlay.pin(start, min(BLOCK_BYTES, overlay.size_bytes - start))

        def sealing(seal: str) -> None:
            self._checkpoint.save({"runs": runs, "sealed": seal})

        yield Doubt(doubted, sealed, sealing, self.clear)
        self.clear()

    def clear(self) -> None:
        """Forget the blocks: nothing half made is left."""
        self._checkpoint.clear()


def _runs(blocks: set[int]) -> list[list[int]]:
    """Return ascending [first, behind the last] of blocks."""
    runs: list[list[int]] = []
    for index in sorted(blocks):
        if runs and runs[-1][1] == index:
            runs[-1][1] = index + 1
        else:
            runs.append([index, index + 1])
    return runs


def _blocks(saved: dict[str, Any]) -> set[int]:
    try:
        return {index for first, end in saved.get("runs", []) for index in range(first, end)}
    except (TypeError, ValueError) as error:
        raise StateError(f"Bad checkpoint of composed blocks: {error}.") from error
