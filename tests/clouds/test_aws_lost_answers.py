"""AWS carries a request out and its answer gets lost: nothing fails, nothing exists twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.httpsession import URLLib3Session

from imageport.clouds import boot_console, engine_setup
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from tests.clouds.aws_laboratory import AwsLab
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, uploaded
from tests.clouds.stand_in_engine import build_stand_in

LOST = [
    "ec2.CreateVolume", "ec2.CreateSnapshot", "ec2.CreateSecurityGroup", "ec2.RunInstances",
    "ec2.RevokeSecurityGroupEgress", "ec2.RegisterImage", "ec2.AttachVolume", "ec2.DetachVolume",
    "ec2.StartInstances", "ec2.StopInstances", "ec2.TerminateInstances", "ec2.DeregisterImage",
    "ec2.DeleteVolume", "ec2.DeleteSnapshot", "ec2.DeleteSecurityGroup", "ebs.StartSnapshot",
    "ebs.CompleteSnapshot", "s3.PutObject", "s3.DeleteObject",
]  # fmt: skip


class LosesAnswers:
    """Sends the first request of each operation, throws the answer away and says 500."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self._session = URLLib3Session()

    def __call__(self, request: Any, event_name: str, **_: Any) -> AWSResponse | None:
        operation = event_name.removeprefix("before-send.")
        if operation in self.lost:
            return None
        self.lost.append(operation)
        answer = self._session.send(request)
        assert answer.status_code < 400, (operation, answer.content)
        return AWSResponse(request.url, 500, {}, _Body())

    def close(self) -> None:
        self._session.close()


class _Body:
    """An answer without a body."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield b""

    def read(self, *_: Any) -> bytes:
        return b""


@pytest.fixture
def loser(aws_lab: AwsLab) -> Iterator[LosesAnswers]:
    made = LosesAnswers()
    clients = aws_lab._shared
    by_service = {
        "ec2": (clients.ec2, clients.ec2_once),
        "ebs": (clients.ebs,),
        "s3": (clients.s3,),
    }
    events = [
        (client.meta.events, f"before-send.{operation}")
        for operation in LOST
        for client in by_service[operation.split(".")[0]]
    ]
    for system, name in events:
        system.register(name, made)
    try:
        yield made
    finally:
        for system, name in events:
            system.unregister(name, made)
        made.close()


def test_every_answer_may_be_lost_once_from_upload_to_snapshot(
    aws_lab: AwsLab, loser: LosesAnswers, guest: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)
    monkeypatch.setattr(boot_console, "PAUSE_SECONDS", 0.5)
    guest("work")
    cloud = aws_lab.cloud("run-1")
    reference = uploaded(cloud, BLOCKS)
    disk = cloud.make_disk(reference, GUID)
    job = EngineJob(
        action=Action.COMPOSE,
        disk=EngineDisk(path="", disk_guid=GUID),
        options=EngineOptions(recommended=("slow",)),
    )
    assert cloud.run_engine(disk, job, deadline_seconds=60).ok
    assert cloud.boot_once(disk, deadline_seconds=60).stopped_by_itself
    prepared = cloud.snapshot(disk, "P")
    left = {item.id: item.kind for item in cloud.list_ours(SITE)}
    assert left == {reference: "snapshot", disk.id: "volume", prepared: "snapshot"}
    cloud.delete_disk(disk)
    cloud.delete_snapshot(prepared)
    cloud.delete_snapshot(reference)
    assert cloud.list_ours(SITE) == []
    assert aws_lab.state.ledger.open_entries() == []
    assert sorted(loser.lost) == sorted(LOST)
