"""The engine machine: launched on demand, one job, one report, gone.

It has no instance role. What it may do is in presigned URLs: fetch three objects, write two. A
machine that nobody watches any more ends by itself.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imageport.cloud import Cancelled, CloudDisk, never
from imageport.clouds import vm_bootstrap
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.disks import attach, attached_to, wait_free
from imageport.clouds.aws.engine_image import EngineImage, find_engine_image
from imageport.clouds.aws.instances import (
    ENDING,
    LaunchPlan,
    console_text,
    describe_instance,
    existing_instance,
    launch,
    terminate,
    wait_state,
)
from imageport.clouds.aws.job_folder import JobFolder
from imageport.clouds.aws.network import delete_group, engine_group, is_own
from imageport.clouds.aws.waiting import wait_until
from imageport.clouds.intents import Intent
from imageport.compose.build_engine import build_engine
from imageport.compose.contract import EngineJob, EngineReport
from imageport.errors import CloudError, EngineFailed
from imageport.progress import Stage

DEVICE = "/dev/sdf"
DEVICE_BY_ID = "disk/by-id/nvme-Amazon_Elastic_Block_Store_"
"""A volume's NVMe serial is its id without the dash."""
DEVICE_SECONDS = 300
GRACE_SECONDS = 600.0
"""Boot, packages and delivery around the engine's own time."""
TAIL_CHARACTERS = 4000
REPORT, LOG = "report.json", "log.txt"


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One engine job on one disk."""

    disk: CloudDisk
    job: EngineJob
    payload: Path | None
    deadline_seconds: float


def run_engine(
    account: Account, run: EngineRun, stage: Stage, cancelled: Cancelled = never
) -> EngineReport:
    """Run the job and return the report; `EngineFailed` when none arrived. Leaves nothing behind.

    A call after a crash finds the machine of the killed call and waits for its report.
    """
    account.settings.require("bucket", "subnet_id")
    facts = (run.disk.id, hashlib.sha256(run.job.to_json().encode()).hexdigest())
    folder = JobFolder(account, "engine-job", *facts)
    intent = account.intend("instance", "engine", account.run, *facts)
    group_id = engine_group(account)
    instance_id = ""
    try:
        instance_id = existing_instance(account, intent)
        if not instance_id and folder.read(REPORT) is None:
            instance_id = _launch(account, intent, run, folder, (group_id, stage))
        if instance_id:
            account.record(intent, instance_id)
            _connect(account, run.disk, instance_id, cancelled)
            stage.note(f"engine runs on {instance_id}")
        return _await_report(account, run, folder, instance_id, cancelled)
    finally:
        steps = [] if not instance_id else [
            (instance_id, lambda: terminate(account, instance_id)),
            (run.disk.id, lambda: wait_free(account, run.disk.id, 300.0)),
        ]  # fmt: skip
        if not instance_id:
            account.void(intent)
        steps.append((folder.prefix, folder.delete))
        if is_own(account, group_id):
            steps.append((group_id, lambda: delete_group(account, group_id)))
        for left in account.undo_all(steps):
            stage.note(f"left for the sweep: {left}")


def user_data(setup_url: str, setup_sha256: str, minutes: int) -> str:
    """Return the script that the machine runs at its first boot."""
    source = Path(vm_bootstrap.__file__).read_text()
    call = f"run_job({setup_url!r}, {setup_sha256!r}, {minutes})"
    return f"#!{vm_bootstrap.PYTHON}\n{source}\n\n{call}\n"


def _launch(
    account: Account, intent: Intent, run: EngineRun, folder: JobFolder, place: tuple[str, Stage]
) -> str:
    group_id, stage = place
    image = find_engine_image(account)
    if image.laboratory:
        stage.note(
            f"no engine image named: {image.id} installs its packages at boot (laboratory default)"
        )
    seconds = run.deadline_seconds + GRACE_SECONDS
    setup_sha256 = folder.write("setup.json", _setup(run, folder, seconds))
    script = user_data(
        folder.url("get_object", "setup.json", seconds), setup_sha256, int(seconds // 60) + 1
    )
    root: dict[str, Any] = {"DeviceName": image.root_device, "Ebs": {"DeleteOnTermination": True}}
    plan = LaunchPlan(
        image_id=image.id,
        instance_type=account.settings.engine_instance_type,
        security_group_id=group_id,
        shutdown_behavior="terminate",
        user_data=script,
        block_devices=(root,),
    )
    return launch(account, intent, plan)


def _setup(run: EngineRun, folder: JobFolder, seconds: float) -> bytes:
    """Write engine and payload to the folder; return the document that leads to them."""
    with tempfile.TemporaryDirectory() as scratch:
        built = build_engine(Path(scratch, "engine.pyz"))
        folder.write_file("engine.pyz", built.path)
    setup: dict[str, Any] = {
        "engine": {"url": folder.url("get_object", "engine.pyz", seconds), "sha256": built.sha256},
        "job": json.loads(run.job.to_json()),
        "devices": [DEVICE_BY_ID + run.disk.id.replace("-", "")],
        "device_seconds": DEVICE_SECONDS,
        "engine_seconds": run.deadline_seconds,
        "report_url": folder.url("put_object", REPORT, seconds),
        "log_url": folder.url("put_object", LOG, seconds),
    }
    if run.payload is not None:
        sha256 = folder.write_file("payload.zip", run.payload)
        setup["payload"] = {
            "url": folder.url("get_object", "payload.zip", seconds),
            "sha256": sha256,
        }
    return json.dumps(setup).encode()


def _connect(account: Account, disk: CloudDisk, instance_id: str, cancelled: Cancelled) -> None:
    if attached_to(account, disk.id) != instance_id:
        wait_state(account, instance_id, "running", cancelled=cancelled)
        attach(account, disk.id, instance_id, DEVICE)


def _await_report(
    account: Account, run: EngineRun, folder: JobFolder, instance_id: str, cancelled: Cancelled
) -> EngineReport:
    ended: list[str] = []

    def check() -> bytes | None:
        report = folder.read(REPORT)
        if report is not None or not instance_id or ended:
            return report if report is not None else b""
        facts = describe_instance(account, instance_id)
        if facts is None or facts.state in ENDING | {"stopped"}:
            # Look once more: the report may have come between the two questions.
            ended.append("the machine ended without a report" if facts else "the machine is gone")
        return None

    found = wait_until(
        check,
        run.deadline_seconds + GRACE_SECONDS,
        cancelled=cancelled,
        pulse=account.live,
    )
    if not found:
        cause = ended[0] if ended else f"no report after {run.deadline_seconds:.0f} s"
        raise _engine_failed(account, run, folder, instance_id, cause)
    try:
        return EngineReport.from_json(found)
    except ValueError as error:
        raise _engine_failed(account, run, folder, instance_id, str(error)) from error


def _engine_failed(
    account: Account, run: EngineRun, folder: JobFolder, instance_id: str, cause: str
) -> EngineFailed:
    log = (folder.read(LOG) or b"").decode(errors="replace")
    if not log and instance_id:
        try:
            log = console_text(account, instance_id)
        except CloudError as error:
            log = f"(no console text: {error.message})"
    return EngineFailed(
        f"Cannot {run.job.action} '{run.disk.id}': {cause}.",
        hint="Read the log in this error; a missing package or device shows there.",
        log=log[-TAIL_CHARACTERS:],
        instance=instance_id,
        disk=asdict(run.disk),
    )


__all__ = ["EngineImage", "EngineRun", "run_engine", "user_data"]
