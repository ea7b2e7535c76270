"""The engine machine: launched on demand, one job, one report, gone.

It has no instance role. What it may do is in presigned URLs: fetch three objects, write two. A
machine that nobody watches any more ends by itself.
"""

from __future__ import annotations

import hashlib
from typing import Any

from imageport.cloud import Cancelled, CloudDisk, never
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.disks import attach, attached_to, wait_free
from imageport.clouds.aws.engine_image import find_engine_image
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
from imageport.clouds.engine_setup import REPORT, DeviceNames, EngineRun, ReportWatch, write_setup
from imageport.clouds.intents import Intent
from imageport.clouds.waiting import wait_until
from imageport.compose.contract import EngineReport
from imageport.progress import Stage

DEVICE = "/dev/sdf"
DEVICE_BY_ID = "disk/by-id/nvme-Amazon_Elastic_Block_Store_"
"""A volume's NVMe serial is its id without the dash."""


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


def _launch(
    account: Account, intent: Intent, run: EngineRun, folder: JobFolder, place: tuple[str, Stage]
) -> str:
    group_id, stage = place
    image = find_engine_image(account)
    if image.laboratory:
        stage.note(
            f"no engine image named: {image.id} installs its packages at boot (laboratory default)"
        )
    names = DeviceNames((DEVICE_BY_ID + run.disk.id.replace("-", ""),))
    root: dict[str, Any] = {"DeviceName": image.root_device, "Ebs": {"DeleteOnTermination": True}}
    plan = LaunchPlan(
        image_id=image.id,
        instance_type=account.settings.engine_instance_type,
        security_group_id=group_id,
        shutdown_behavior="terminate",
        user_data=write_setup(run, folder, names),
        block_devices=(root,),
    )
    return launch(account, intent, plan)


def _connect(account: Account, disk: CloudDisk, instance_id: str, cancelled: Cancelled) -> None:
    if attached_to(account, disk.id) != instance_id:
        wait_state(account, instance_id, "running", cancelled=cancelled)
        attach(account, disk.id, instance_id, DEVICE)


def _await_report(
    account: Account, run: EngineRun, folder: JobFolder, instance_id: str, cancelled: Cancelled
) -> EngineReport:
    def ended() -> str:
        facts = describe_instance(account, instance_id)
        if facts is None:
            return "the machine is gone"
        over = facts.state in ENDING | {"stopped"}
        return "the machine ended without a report" if over else ""

    watch = ReportWatch(run, folder, instance_id, ended)
    found = wait_until(watch.check, run.machine_seconds, cancelled=cancelled, pulse=account.live)
    return watch.report(found, lambda: console_text(account, instance_id))
