"""Operations are asked for at the configured address until they end, and their errors are ours."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.api_core.exceptions import Forbidden, ServiceUnavailable
from google.cloud.compute_v1.types import Error, Errors, Operation

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.clients import GcpClients
from imageport.clouds.gcp.named_resources import delete, make
from imageport.clouds.gcp.operations import finished
from imageport.errors import (
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    PermissionMissing,
    ResourceGone,
    TransferCancelled,
)
from tests.clouds.gcp_laboratory import GcpLab
from tests.clouds.test_gcp_errors import of_reason

IMAGE = "projects/imageport-lab/global/images/gold"
ZONE = "https://www.googleapis.com/compute/v1/projects/p/zones/europe-west3-a"
REGION = "https://www.googleapis.com/compute/v1/projects/p/regions/europe-west3"
RUNNING = Operation(name="operation-1", status=Operation.Status.RUNNING)
DONE = Operation(name="operation-1", status=Operation.Status.DONE)

GONE = of_reason(404, "notFound")


class Answers:
    """An operations client that answers with what it is given, and remembers what it was asked."""

    def __init__(self, *answers: Operation | Exception) -> None:
        self._answers: Iterator[Operation | Exception] = iter(answers)
        self.asked: list[dict[str, Any]] = []

    def get(self, **named: Any) -> Operation:
        self.asked.append(named)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def account_of(answers: Answers, kind: str = "global_operations") -> GcpAccount:
    lived: list[None] = []
    clients = SimpleNamespace(poll_seconds=0.001, **{kind: answers})
    return cast(
        "GcpAccount",
        SimpleNamespace(
            clients=clients,
            settings=SimpleNamespace(project="imageport-lab"),
            live=lambda: lived.append(None),
            lived=lived,
        ),
    )


def failed(code: str, message: str = "Google's sentence.") -> Operation:
    return Operation(
        name="operation-1",
        status=Operation.Status.DONE,
        error=Error(errors=[Errors(code=code, message=message)]),
    )


def wait(account: GcpAccount, operation: Operation, **options: Any) -> Operation:
    return finished(account, operation, "compute.images.insert", IMAGE, **options)


def test_an_operation_is_asked_for_until_it_is_done():
    answers = Answers(RUNNING, RUNNING, DONE)
    account: Any = account_of(answers)
    assert wait(account, RUNNING).status == Operation.Status.DONE
    assert answers.asked == [{"project": "imageport-lab", "operation": "operation-1"}] * 3
    assert len(account.lived) == 3


def test_an_operation_that_is_done_is_not_asked_for():
    assert wait(account_of(Answers()), DONE) == DONE


@pytest.mark.parametrize(
    ("place", "kind", "asked"),
    [
        ({"zone": ZONE}, "zone_operations", {"zone": "europe-west3-a"}),
        ({"region": REGION}, "region_operations", {"region": "europe-west3"}),
    ],
)
def test_an_operation_is_asked_for_where_it_runs(
    place: dict[str, str], kind: str, asked: dict[str, str]
):
    answers = Answers(DONE)
    running = Operation(name="operation-1", status=Operation.Status.PENDING, **place)
    wait(account_of(answers, kind), running)
    assert answers.asked == [{"project": "imageport-lab", "operation": "operation-1", **asked}]


def test_a_question_that_fails_for_a_moment_is_asked_again():
    silent = ServiceUnavailable("no")
    assert wait(account_of(Answers(silent, silent, DONE)), RUNNING) == DONE
    with pytest.raises(PermissionMissing):
        wait(account_of(Answers(Forbidden("no"))), RUNNING)


def test_an_operation_that_vanished_says_nothing_of_what_it_was_about():
    with pytest.raises(CloudUnavailable, match=r"Cannot follow 'operation-1' of .*/gold'"):
        wait(account_of(Answers(GONE)), RUNNING)


def test_what_is_deleted_is_asked_for_again_when_the_operation_vanished():
    account: Any = account_of(Answers(GONE), "zone_operations")
    account.marked = []
    account.mark = lambda *told: account.marked.append(told)
    running = Operation(name="operation-1", status=Operation.Status.PENDING, zone=ZONE)
    answers = Answers(running, GONE)
    delete(account, "compute.disks.delete", "disk", answers.get)
    assert len(answers.asked) == 2
    assert account.marked == [("disk", "deleted")]


def test_what_another_request_made_first_is_there():
    for code in ("RESOURCE_ALREADY_EXISTS", "alreadyExists"):
        made = make(
            account_of(Answers(failed(code))), "compute.images.insert", IMAGE, lambda _: RUNNING,
            deadline_seconds=5.0,
        )  # fmt: skip
        assert not made


def test_a_request_whose_answer_was_lost_ends_with_the_operation_that_it_began():
    answers = Answers(RUNNING, DONE)
    asked: list[str] = []

    def insert(request_id: str) -> Operation:
        asked.append(request_id)
        if len(asked) == 1:
            raise ServiceUnavailable("carried out, but who knows")
        return RUNNING

    assert make(account_of(answers), "compute.images.insert", IMAGE, insert, deadline_seconds=5.0)
    first, again = asked
    assert first == again  # by which Google tells a repetition
    assert len(answers.asked) == 2


def test_an_operation_that_failed_is_begun_anew_and_not_asked_for_again():
    answers = Answers(failed("INTERNAL_ERROR"), DONE)
    asked: list[str] = []

    def insert(request_id: str) -> Operation:
        asked.append(request_id)
        return RUNNING

    assert make(account_of(answers), "compute.images.insert", IMAGE, insert, deadline_seconds=5.0)
    assert len(set(asked)) == 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", CloudUnavailable),
        ("QUOTA_EXCEEDED", CloudRefused),
        ("RESOURCE_NOT_READY", CloudUnavailable),
        ("RESOURCE_NOT_FOUND", ResourceGone),
        ("RESOURCE_OPERATION_RATE_EXCEEDED", CloudThrottled),
        ("INVALID_IMAGE_FILE", CloudRefused),
    ],
)
def test_what_an_operation_ended_with_is_raised(code: str, kind: type[Exception]):
    with pytest.raises(kind, match=rf"Cannot insert image 'gold': {code}: Google's sentence"):
        wait(account_of(Answers(failed(code))), RUNNING)


def test_a_failure_that_is_told_by_its_status_alone_is_one():
    ended = Operation(
        name="x", status=Operation.Status.DONE, http_error_status_code=503,
        http_error_message="SERVICE UNAVAILABLE",
    )  # fmt: skip
    with pytest.raises(CloudUnavailable, match="SERVICE UNAVAILABLE"):
        wait(account_of(Answers()), ended)


def test_waiting_ends_at_the_deadline_and_when_the_run_is_cancelled():
    with pytest.raises(CloudUnavailable, match="not finished after 0 s"):
        wait(account_of(Answers(*[RUNNING] * 99)), RUNNING, deadline_seconds=0.01)
    with pytest.raises(TransferCancelled):
        wait(account_of(Answers(RUNNING)), RUNNING, cancelled=lambda: True)


def test_clients_ask_at_the_configured_address_with_proxy_and_authority(gcp_lab: GcpLab):
    settings = gcp_lab.settings(
        endpoint_url="", private_service_connect="workers", proxy="http://p:1", ca_bundle="/ca.pem"
    )
    clients = GcpClients(settings, gcp_lab.connections.credentials)
    for client in (clients.images, clients.zone_operations):
        transport: Any = client.transport
        assert transport._host == "https://compute-workers.p.googleapis.com"
        assert transport._session is clients.session
    assert clients.token_request.network == {
        "proxies": {"http": "http://p:1", "https": "http://p:1"},
        "verify": "/ca.pem",
    }
    assert clients.session.get_adapter("https://x")._pool_maxsize >= 64  # type: ignore[attr-defined]
    clients.close()
    clients.close()
