"""Prepare: generation U composed, booted once and judged in the target account, as generation P.

What was composed at the site, before it was uploaded, is only booted and judged.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imageport.cloud import BootOutcome, CloudDisk
from imageport.compose.build_engine import engine_id
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineReport
from imageport.errors import FirstBootFailed, ImageportError, InputError, ResourceGone
from imageport.model import GenerationRole
from imageport.progress import Stage
from imageport.state.records import Generation
from imageport.workflow.checkpoints import Checkpoint
from imageport.workflow.choices import PrepareChoices
from imageport.workflow.engine_outcome import require_ok
from imageport.workflow.facts import options_key
from imageport.workflow.generations import (
    composed_from,
    engine_place,
    generation_id,
    hand_to_catalogue,
    handle_of,
    now_text,
    snapshot_of,
    usable,
)
from imageport.workflow.place import Workplace, may_go_on
from imageport.workflow.preflight import payload_sha256
from imageport.workflow.retention import retire_parent

STAGE = "prepare"
CONSOLE_CHARACTERS = 8000


def prepare(
    place: Workplace,
    uploaded_id: str,
    choices: PrepareChoices,
    *,
    payload: Path | None = None,
) -> Generation:
    """Return generation P of an upload, composing and booting a copy of it once.

    A run that was killed goes on where it was; a disk that was being edited when it was killed is
    thrown away and made again from U, which nothing ever writes.

    Raises:
        InputError: U was composed at the site with other options.
        InputError: it boots by BIOS, see `_need_uefi`.
        GuestRefused, VerdictFailed, FirstBootFailed, EngineFailed: see `require_ok`.
        ResourceGone: U was deleted outside.
    """
    uploaded = place.state.catalogue.get(uploaded_id)
    payload_digest = payload_sha256(payload)
    key = options_key(choices, payload_digest, engine_id())
    with place.holding(uploaded.image) as lease:
        held = dataclasses.replace(place, cancelled=place.asked_under(lease))
        preparation = _Preparation(held, uploaded, choices, payload, payload_digest, key)
        found = find_current(place, uploaded.image, composed_from(uploaded), key)
        if found is not None:
            preparation.tidy_up()
            stage = Stage(STAGE, place.events, unit="steps")
            stage.finish(f"nothing had to be done: {snapshot_of(found)} is prepared")
            return found
        if usable(place, uploaded) is None:
            raise ResourceGone(f"Cannot prepare '{uploaded_id}': its snapshot is gone.")
        if uploaded.details.get("options_key", key) != key:
            raise InputError(
                f"Cannot prepare '{uploaded_id}': it was composed at the site with other options, "
                "files or another engine.",
                hint="Compose and upload it again with these.",
            )
        return preparation.run()


def find_current(
    place: Workplace, image: str, source_key: str, options_key_: str
) -> Generation | None:
    """Return the usable generation P of this content and these options."""
    for item in place.state.catalogue.list(
        image=image, target=place.target, role=GenerationRole.PREPARED
    ):
        if item.source_key == source_key and item.details.get("options_key") == options_key_:
            return usable(place, item)
    return None


def _need_uefi(image: str, firmware: str) -> None:
    """Raise before a machine is made that would never start: every cloud's boots by UEFI.

    The verdict passes BIOS for machine catalogs, whose images may be made by other means.
    """
    if firmware == "bios":
        raise InputError(
            f"Cannot boot '{image}' once: it boots by BIOS, the machine of the one boot by UEFI.",
            hint="Set the option convert_to_uefi, or use `imageport prepare` on the image alone.",
        )


@dataclass
class _Preparation:
    """The steps on one disk; each leaves a checkpoint when it is done."""

    place: Workplace
    uploaded: Generation
    choices: PrepareChoices
    payload: Path | None
    payload_digest: str
    key: str

    def run(self) -> Generation:
        checkpoint = self._checkpoint()
        self.stage = Stage(STAGE, self.place.events, total=5, unit="steps")
        done = self._taken_up(checkpoint)
        try:
            generation = self._steps(checkpoint, done)
        except BaseException as error:
            if not may_go_on(error):
                # The first error is the one to report; the sweep takes what stays.
                with contextlib.suppress(ImageportError):
                    self._discard(done)
                    checkpoint.clear()
            raise
        self.tidy_up()
        self.stage.finish(f"{snapshot_of(generation)} is prepared")
        return generation

    def tidy_up(self) -> None:
        """Delete what P does not need any more; for a run that was killed right after P, too."""
        checkpoint = self._checkpoint()
        self._discard(checkpoint.load())
        checkpoint.clear()
        retire_parent(self.place, self.uploaded)

    def _checkpoint(self) -> Checkpoint:
        work = (STAGE, self.uploaded.id, self.key, self.place.run)
        return Checkpoint(self.place.state.folder, *work)

    def _taken_up(self, checkpoint: Checkpoint) -> dict[str, Any]:
        done = checkpoint.load()
        if done.get("step") == "composing":
            self.stage.note("the disk was being edited when the run ended: made again from U")
            self._discard(done)
            checkpoint.clear()
            return {}
        return done

    def _steps(self, checkpoint: Checkpoint, done: dict[str, Any]) -> Generation:
        cloud = self.place.cloud
        if "disk" not in done:
            guid = str(self.uploaded.details.get("disk_guid", ""))
            disk = cloud.make_disk(snapshot_of(self.uploaded), guid)
            done.update(disk=dataclasses.asdict(disk), step="made")
            checkpoint.save(done)
        disk = CloudDisk(**done["disk"])
        self.stage.advance(1, f"working disk {disk.id}")
        if "composed" in self.uploaded.details:
            done["composed"] = self.uploaded.details["composed"]
        elif "composed" not in done:
            done["step"] = "composing"
            checkpoint.save(done)
            report = self._engine(disk, Action.COMPOSE)
            done.update(composed=report.to_json(), step="composed")
            checkpoint.save(done)
        composed = EngineReport.from_json(done["composed"])
        # A disk that was converted to GPT goes by another identity from then on.
        disk = dataclasses.replace(disk, disk_guid=composed.inspection.disk_guid or disk.disk_guid)
        self.stage.advance(1, f"{len(composed.changes)} changes made, verdict passed")
        if "booted" not in done:
            done.update(
                booted=dataclasses.asdict(self._boot(disk, composed.inspection.firmware)),
                step="booted",
            )
            checkpoint.save(done)
        self.stage.advance(1, f"booted once in {done['booted']['seconds']:.0f} s, shut down itself")
        verified = self._engine(disk, Action.VERIFY)
        self.stage.advance(1, f"verdict after the boot: {len(verified.verdict)} items passed")
        reference = cloud.snapshot(disk, f"imageport P of {self.uploaded.image}")
        self.stage.advance(1, f"snapshot {reference}")
        return self._keep(reference, composed, verified, BootOutcome(**done["booted"]))

    def _engine(self, disk: CloudDisk, action: Action) -> EngineReport:
        job = EngineJob(
            action=action,
            disk=EngineDisk(path="", disk_guid=disk.disk_guid),
            options=self.choices.engine,
            run=self.place.run,
            payload_sha256=self.payload_digest,
        )
        report = self.place.cloud.run_engine(
            disk,
            job,
            self.payload,
            deadline_seconds=self.choices.engine_deadline_seconds,
            events=self.place.events,
            cancelled=self.place.cancelled,
        )
        return require_ok(report, self.uploaded.image)

    def _boot(self, disk: CloudDisk, firmware: str) -> BootOutcome:
        _need_uefi(self.uploaded.image, firmware)
        outcome = self.place.cloud.boot_once(
            disk,
            deadline_seconds=self.choices.boot_deadline_seconds,
            events=self.place.events,
            cancelled=self.place.cancelled,
        )
        if not outcome.stopped_by_itself:
            raise FirstBootFailed(
                f"Cannot boot '{self.uploaded.image}' once: {outcome.reason}.",
                hint="The console text in this error shows how far Windows came.",
                console=outcome.console_text[-CONSOLE_CHARACTERS:],
                seconds=outcome.seconds,
            )
        return outcome

    def _keep(
        self,
        reference: str,
        composed: EngineReport,
        verified: EngineReport,
        booted: BootOutcome,
    ) -> Generation:
        uploaded = self.uploaded
        generation = Generation(
            id=generation_id(
                GenerationRole.PREPARED, uploaded.image, uploaded.target, uploaded.id, self.key,
                reference,
            ),
            image=uploaded.image,
            target=uploaded.target,
            role=GenerationRole.PREPARED,
            created=now_text(),
            size_bytes=uploaded.size_bytes,
            source_key=composed_from(uploaded),
            image_digest="",
            handle=handle_of(self.place, reference),
            parent_id=uploaded.id,
            details={
                "engine": engine_place(uploaded).value,
                "options_key": self.key,
                "run": self.place.run,
                "composed": composed.to_json(),
                "verified": verified.to_json(),
                "boot_seconds": booted.seconds,
                "console": booted.console_text[-CONSOLE_CHARACTERS:],
            },
        )  # fmt: skip
        return hand_to_catalogue(self.place, generation)

    def _discard(self, done: dict[str, Any]) -> None:
        if "disk" in done:
            self.place.cloud.delete_disk(CloudDisk(**done["disk"]))
