"""AWS carries a request out and its answer gets lost: the first of every operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.httpsession import URLLib3Session

from imageport.clouds.aws.clients import AwsClients

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


@contextlib.contextmanager
def losing_answers(clients: AwsClients) -> Iterator[LosesAnswers]:
    """Lose the first answer of each operation that changes anything."""
    made = LosesAnswers()
    by_service: dict[str, tuple[Any, ...]] = {
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
