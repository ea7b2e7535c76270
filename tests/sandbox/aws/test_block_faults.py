"""Throttling, faults, time-outs and missing permissions, by the names that AWS uses."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

DATA = bytes(512 * 1024)


def test_too_many_puts_a_second_are_throttled_per_snapshot(account: Any, refused: Any):
    account.service.turn(throttle_rps=2)
    snapshot_id = account.start()
    account.put(snapshot_id, 0, DATA)
    account.put(snapshot_id, 1, DATA)
    found = refused(account.put, snapshot_id, 2, DATA)
    assert (found["code"], found["reason"]) == (
        "RequestThrottledException",
        "RESOURCE_LEVEL_THROTTLE",
    )
    account.put(account.start(), 0, DATA)  # another snapshot has its own limit


def test_the_accounts_limit_of_completions_has_another_name(account: Any):
    codes = set()
    for _ in range(30):
        try:
            account.complete("snap-0123456789abcdef0", 0)
        except ClientError as error:
            codes.add(error.response["Error"]["Code"])
    assert "ThrottlingException" in codes
    time.sleep(1.1)  # the bucket is the account's: leave it full for the next test


def test_a_snapshot_that_nobody_writes_to_ends_in_error(account: Any, refused: Any):
    account.service.turn(minute_seconds=0.02)
    snapshot_id = account.start(Timeout=10)
    account.until(lambda: account.snapshot_state(snapshot_id) == "error", 5)
    found = refused(account.put, snapshot_id, 0, DATA)
    assert found["reason"] == "WRITE_REQUEST_TIMEOUT"


def test_a_new_snapshot_may_be_unknown_to_the_block_servers_at_first(account: Any, refused: Any):
    account.service.turn(unknown_seconds=0.5)
    snapshot_id = account.start()
    assert refused(account.put, snapshot_id, 0, DATA)["code"] == "ResourceNotFoundException"
    assert account.snapshot_state(snapshot_id) == "pending"
    time.sleep(0.6)
    account.put(snapshot_id, 0, DATA)


def test_some_requests_fail_and_trying_again_succeeds(account: Any):
    account.service.turn(fault_rate=0.5)
    snapshot_id = ""
    failures: list[tuple[str, int]] = []
    for _ in range(60):
        try:
            snapshot_id = account.start(ClientToken="faulty")
            account.put(snapshot_id, 0, DATA)
        except ClientError as error:
            failures.append(
                (
                    error.response["Error"]["Code"],
                    error.response["ResponseMetadata"]["HTTPStatusCode"],
                )
            )
    assert snapshot_id
    assert 10 < len(failures) < 59
    assert set(failures) == {("InternalServerException", 500)}


def test_faults_of_ec2_and_s3_are_in_their_own_formats(account: Any, refused: Any):
    account.service.turn(fault_rate=1.0)
    assert refused(account.ec2.describe_volumes)["code"] == "InternalError"
    assert refused(account.s3.list_buckets)["code"] == "ServiceUnavailable"


def test_too_many_calls_to_ec2_are_throttled_by_its_own_name(account: Any, refused: Any):
    account.service.turn(control_rps=1)
    account.ec2.describe_volumes()
    found = refused(account.ec2.describe_volumes)
    assert (found["code"], found["status"]) == ("RequestLimitExceeded", 503)


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("ebs:StartSnapshot", "AccessDeniedException"),
        ("ec2:DescribeVolumes", "UnauthorizedOperation"),
    ],
)
def test_a_denied_action_is_refused_by_name(account: Any, refused: Any, action: str, code: str):
    account.service.turn(denied=[action])
    calls = {"ebs:StartSnapshot": account.start, "ec2:DescribeVolumes": _describe(account)}
    found = refused(calls[action])
    assert (found["code"], found["status"]) == (code, 403)
    assert f"not authorized to perform: {action}" in found["message"]


def _describe(account: Any) -> Any:
    return account.ec2.describe_volumes


def test_an_unknown_knob_is_refused(account: Any):
    with pytest.raises(ValueError, match="found speed"):
        account.service.turn(speed=3)
