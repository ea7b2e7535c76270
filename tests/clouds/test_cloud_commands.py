"""``imageport sweep`` and ``imageport doctor`` as an administrator runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imageport.cli.main import main
from imageport.clouds.aws.cloud import AwsCloud
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder
from tests.clouds.aws_laboratory import BUCKET, REGION, AwsLab
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, generation, uploaded

SECRET = "pl4nted-s3cret"


@pytest.fixture
def state(tmp_path: Path) -> StateStore:
    (tmp_path / "state").mkdir()
    return StateStore(LocalFolder(tmp_path / "state"))


@pytest.fixture
def arguments(aws_lab: AwsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    settings = aws_lab.settings()
    return [
        "--cloud", "aws", "--region", REGION, "--site", SITE, "--bucket", BUCKET,
        "--zone", settings.availability_zone, "--subnet", settings.subnet_id,
        "--state", str(tmp_path / "state"), "--endpoint-url", settings.endpoint_url,
    ]  # fmt: skip


def expired_cloud(lab: AwsLab, state: StateStore) -> AwsCloud:
    """A run whose resources are past their expiry as soon as they are made."""
    return lab.aws_cloud("run-1", ledger=state.ledger, expires_seconds=-60.0)


def test_sweep_first_says_and_then_deletes_what_expired(
    aws_lab: AwsLab,
    state: StateStore,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
):
    cloud = expired_cloud(aws_lab, state)
    kept = uploaded(cloud, BLOCKS)
    state.catalogue.add(generation(kept))
    disk = cloud.make_disk(kept, GUID)
    assert main(["sweep", *arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out == f"would delete volume {disk.id}\n"
    assert len(cloud.list_ours(SITE)) == 2
    assert main(["sweep", *arguments, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["id"]) == ("volume", disk.id)
    assert [item.id for item in cloud.list_ours(SITE)] == [kept]
    assert main(["sweep", *arguments]) == 0
    assert capsys.readouterr().out == "Nothing to delete.\n"


@pytest.mark.parametrize("option", ["--site", "--bucket", "--region"])
def test_sweep_without_what_it_needs_is_refused_as_wrong_usage(
    arguments: list[str], option: str, capsys: pytest.CaptureFixture[str]
):
    at = arguments.index(option)
    assert main(["sweep", *arguments[:at], *arguments[at + 2 :]]) == 2
    assert option.strip("-") in capsys.readouterr().err


def test_doctor_reports_every_missing_action_and_how_to_mend_it(
    aws_lab: AwsLab, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert_doctor(["doctor", *arguments, "--store", str(tmp_path), "--json"])
    checks = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert checks["aws"]["passed"]
    assert checks[str(tmp_path)]["passed"]
    assert checks["Python"]["passed"]
    aws_lab.service.turn(denied=["ebs:CompleteSnapshot", "ec2:RegisterImage"])
    assert main(["doctor", *arguments]) == 1
    written = capsys.readouterr().out
    assert "FAIL  ebs:CompleteSnapshot: denied" in written
    assert "Grant ec2:RegisterImage (for prepare (first boot))" in written
    assert SECRET not in written


def test_doctor_names_a_store_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--store", str(tmp_path / "nowhere")]) == 1
    assert f"FAIL  {tmp_path / 'nowhere'}" in capsys.readouterr().out


def assert_doctor(argv: list[str]) -> None:
    """Doctor also looks at this computer, which may lack tools; it never breaks over that."""
    assert main(argv) in {0, 1}
