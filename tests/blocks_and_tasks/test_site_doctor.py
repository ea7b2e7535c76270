"""What the doctor says of a saved site, read from a real server."""

from __future__ import annotations

import json

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from blocks import AzureTarget, PvsStore, Site, SmbShare
from flows import doctor
from flows.register import register_types
from imageport.doctor.check import Check
from tasks._places import load_site
from tasks.site_checks import site_checks

pytestmark = [pytest.mark.prefect]
SECRET = "Pa55-in-the-open"
ID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def site(prefect_server: None, tmp_path_factory: pytest.TempPathFactory) -> str:  # noqa: ARG001 - needed first
    register_types()
    folder = tmp_path_factory.mktemp("ill")
    share = SmbShare(host="127.0.0.1", port=1, share="store", username="u", password=SECRET)
    block = Site(
        name="ill", work_pool="ill", store=PvsStore(share=share), state_folder=str(folder),
        payload_folder=str(folder / "nowhere"),
    )  # fmt: skip
    block.save("ill", overwrite=True)
    AzureTarget(
        subscription_id=ID, resource_group="vdi", location="westeurope",
        endpoint_url="http://127.0.0.1:1",
    ).save("ill", overwrite=True)  # fmt: skip
    return "ill"


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_everything_wrong_with_a_site_is_told_at_once(site: str) -> None:
    found = by_name(site_checks(load_site(site), ["imageport-site/ill"]))
    assert found["state store"].passed
    assert found["state store, leases"].passed
    for name in (
        "vDisk store smb://127.0.0.1:1/store",
        "operator's files",
        "work pool ill",
        "imageport-site/ill",
    ):
        assert found[name].mark == "FAIL", name
        assert found[name].found
    assert "there is no such pool" in found["work pool ill"].found
    assert "register --pools" in found["work pool ill"].mend
    assert SECRET not in repr(found)


def test_a_pool_without_a_worker_is_not_ready(site: str) -> None:
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="ill", type="process"))
        try:
            found = by_name(site_checks(load_site(site), ["imageport-site/ill"]))
        finally:
            client.delete_work_pool("ill")
    assert found["work pool ill"].passed
    assert found["work pool ill, workers"].found == "none is online"
    assert "prefect worker start --pool ill" in found["work pool ill, workers"].mend
    assert not found["work pool ill, deployments"].passed


def test_the_program_behind_the_command_answers_in_json(
    site: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main([site, "--target", "imageport-site/ill"]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {"name", "passed", "found", "mend", "optional"} == set(checks[0])
    assert doctor.main(["nowhere"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "Cannot load the Site block 'nowhere'" in error["message"]


def test_a_state_names_what_failed_and_not_what_is_optional() -> None:
    good = Check("a", passed=True, found="fine")
    note = Check("b", passed=False, found="absent", optional=True)
    bad = Check("c", passed=False, found="denied", mend="Grant it.")
    assert doctor._verdict([good, note]).is_completed()
    state = doctor._verdict([good, note, bad])
    assert state.is_failed()
    assert state.message == "1 of 3 checks failed:\nc: denied"
    assert bad.row()["how to mend it"] == "Grant it."
    assert good.row()["how to mend it"] == ""
