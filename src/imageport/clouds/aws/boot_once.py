"""Boots the composed volume once, as the root of a stub machine that reaches no network.

The guest says that it is finished by shutting down. A reboot does not count: EC2 keeps the state
``running`` over it.
"""

from __future__ import annotations

import base64
from typing import Any

from imageport.cloud import BootOutcome, Cancelled, CloudDisk, never
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.disks import attach, attached_to, delete_volume, detach
from imageport.clouds.aws.error_mapping import asked, done_already
from imageport.clouds.aws.instances import (
    ENDING,
    InstanceFacts,
    LaunchPlan,
    console_text,
    describe_instance,
    existing_instance,
    launch,
    stop,
    terminate,
    wait_state,
)
from imageport.clouds.aws.job_folder import JobFolder
from imageport.clouds.aws.network import delete_group, is_own, isolated_group
from imageport.clouds.aws.stub_image import ROOT_DEVICE, delete_stub_image, make_stub_image
from imageport.clouds.booted_machine import BootedMachine
from imageport.progress import Stage

STARTED_TAG = "imageport:boot-started"
BY_GUEST = "Client.InstanceInitiatedShutdown"
SCREENSHOT = "screenshot.jpg"


def boot_once(
    account: Account,
    disk: CloudDisk,
    deadline_seconds: float,
    stage: Stage,
    cancelled: Cancelled = never,
) -> BootOutcome:
    """Boot the disk until it shuts down; everything but the disk is removed afterwards.

    A call after a crash takes up the stub of the killed call: a guest that is in the middle of
    its first boot is waited for, never powered off.
    """
    account.settings.require("subnet_id")
    group_id = isolated_group(account)
    image_id = snapshot_id = instance_id = ""
    try:
        image_id, snapshot_id = make_stub_image(account, disk.id)
        intent = account.intend("instance", "boot", account.run, disk.id)
        instance_id = existing_instance(account, intent)
        if not instance_id:
            if intent.entry.resource_id:
                account.void(intent)
                intent = account.intend("instance", "boot", account.run, disk.id)
            plan = LaunchPlan(
                image_id,
                account.settings.boot_instance_type,
                group_id,
                "stop",
                # Metadata is a network destination that no security group covers.
                metadata=False,
            )
            instance_id = launch(account, intent, plan)
        account.record(intent, instance_id)
        stage.note(f"stub machine {instance_id} takes {disk.id} as its root")
        _start_with_root(account, instance_id, disk.id, cancelled)
        stub = _Stub(account, instance_id)
        return stub.await_shutdown(deadline_seconds, stage, cancelled, account.live)
    finally:
        for left in _clean_up(account, disk.id, (instance_id, group_id, image_id, snapshot_id)):
            stage.note(f"left for the sweep: {left}")


def _start_with_root(
    account: Account, instance_id: str, volume_id: str, cancelled: Cancelled
) -> None:
    """Swap the root and start; skips what a killed call has done."""
    if attached_to(account, volume_id) != instance_id:
        facts = describe_instance(account, instance_id)
        if facts is None or facts.state != "stopped":
            wait_state(account, instance_id, "running", cancelled=cancelled)
            # The empty disk holds nothing that could answer a polite request to shut down.
            stop(account, instance_id, force=True)
        _drop_root(account, instance_id)
        attach(account, volume_id, instance_id, ROOT_DEVICE)
    facts = describe_instance(account, instance_id)
    if facts is not None and STARTED_TAG in facts.tags:
        return
    # Running by now: an earlier request got through and its answer was lost.
    with done_already("IncorrectInstanceState"), asked("ec2:StartInstances", instance_id):
        account.clients.ec2.start_instances(InstanceIds=[instance_id])
    tag: Any = {"Key": STARTED_TAG, "Value": "yes"}
    with asked("ec2:CreateTags", instance_id):
        account.clients.ec2.create_tags(Resources=[instance_id], Tags=[tag])


def _drop_root(account: Account, instance_id: str) -> None:
    facts = describe_instance(account, instance_id)
    for volume_id in facts.volumes if facts is not None else ():
        detach(account, volume_id)
        delete_volume(account, volume_id)


class _Stub(BootedMachine[InstanceFacts]):
    def __init__(self, account: Account, instance_id: str) -> None:
        self._account = account
        self._id = instance_id

    def over(self) -> InstanceFacts | None:
        """Return the facts of a machine that stopped; AWS lists a terminated one for an hour."""
        facts = describe_instance(self._account, self._id)
        return facts if facts is not None and facts.state in ENDING | {"stopped"} else None

    def ended_from_outside(self, facts: InstanceFacts) -> str:
        """Tell a guest's shutdown from a stop that a person or AWS asked for."""
        if facts.state == "stopped" and _by_guest(facts.state_reason):
            return ""
        return f"{facts.state}: {facts.state_reason}"

    def console_text(self) -> str:
        """Return the newest text of the serial console."""
        return console_text(self._account, self._id)

    def screenshot(self) -> str:
        """Save a screenshot to the job bucket."""
        ec2 = self._account.clients.ec2
        with asked("ec2:GetConsoleScreenshot", self._id):
            answer = ec2.get_console_screenshot(InstanceId=self._id, WakeUp=True)
        folder = JobFolder(self._account, "screenshot", self._id)
        folder.write(SCREENSHOT, base64.b64decode(answer["ImageData"]))
        return f"screenshot at s3://{self._account.settings.bucket}/{folder.prefix}{SCREENSHOT}"


def _by_guest(state_reason: str) -> bool:
    others = ("Client.UserInitiated", "Client.InternalError", "Server.")
    return BY_GUEST in state_reason or not state_reason.strip(": ").startswith(others)


def _clean_up(account: Account, volume_id: str, made: tuple[str, str, str, str]) -> list[str]:
    """Free the disk and remove everything else; returns what stayed."""
    instance_id, group_id, image_id, snapshot_id = made
    steps = []
    if instance_id:
        steps += [
            (instance_id, lambda: _power_off(account, instance_id)),
            (volume_id, lambda: _release(account, volume_id, instance_id)),
            (instance_id, lambda: terminate(account, instance_id)),
        ]
    if image_id:
        steps.append((image_id, lambda: delete_stub_image(account, image_id, snapshot_id)))
    if is_own(account, group_id):
        steps.append((group_id, lambda: delete_group(account, group_id)))
    return account.undo_all(steps)


def _power_off(account: Account, instance_id: str) -> None:
    facts = describe_instance(account, instance_id)
    if facts is not None and facts.state not in ENDING | {"stopped"}:
        if facts.state == "pending":
            wait_state(account, instance_id, "running")
        stop(account, instance_id, force=True)


def _release(account: Account, volume_id: str, instance_id: str) -> None:
    if attached_to(account, volume_id) == instance_id:
        detach(account, volume_id)
