"""The parts of the demo that need no site: which image, how a failure reads, what is summed up."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imageport.cli.demo_workflow import WORKFLOWS
from imageport.cli.run_watch import RunWatch, error_of, short
from imageport.cli.sandbox import describe
from imageport.errors import (
    EngineFailed,
    FileMissing,
    GuestRefused,
    ImageportError,
    InputError,
    ShareFull,
)
from imageport.sandbox.demo_image import chosen_image, chosen_master
from imageport.sandbox.prefect_api import RunState
from imageport.sandbox.sample.installer_package import sha256_of, write_installer
from imageport.sandbox.site import EmbeddedSite
from imageport.sandbox.site_facts import SiteFacts, block_documents, chosen_clouds
from imageport.sandbox.vcenter.master import master_file
from tasks.options import PrepareOptions


def state(message: str) -> RunState:
    return RunState("id", "FAILED", "Failed", message)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            GuestRefused("Cannot plan 'gold': hibernated: hiberfil.sys.", hint="Boot it."),
            GuestRefused,
        ),
        (ShareFull("Cannot write 'gold.vhdx': no space."), ShareFull),
    ],
    ids=["refused", "full"],
)
def test_a_failed_runs_text_gives_the_error_back(
    error: ImageportError, kind: type[ImageportError]
) -> None:
    text = f"Flow run encountered an exception: {type(error).__name__}: {error}"
    found = error_of(state(text), [])
    assert type(found) is kind
    assert found.message == error.message
    assert found.hint == error.hint


def test_a_child_runs_error_is_found_in_its_log() -> None:
    log = [{"message": 'Finished in state Failed("ShareFull: Cannot x: full. [share-full]")'}]
    assert type(error_of(state("Task run failed."), log)) is ShareFull


def test_a_failure_without_a_code_is_told_as_it_is() -> None:
    found = error_of(state("Flow run process exited."), [])
    assert type(found) is EngineFailed
    assert "Flow run process exited." in found.message


def test_the_users_file_is_copied_with_its_times_and_left_alone(tmp_path: Path) -> None:
    source = tmp_path / "Gold Image.vhdx"
    source.write_bytes(b"vhdxfile" * 1000)
    before = source.stat()
    store = tmp_path / "store"
    store.mkdir()
    image = chosen_image(str(source))
    assert image.name == "Gold Image"
    image.put_into(store, lambda _event: None)
    copied = store / "Gold Image.vhdx"
    assert copied.read_bytes() == source.read_bytes()
    assert copied.stat().st_mtime_ns == before.st_mtime_ns
    assert source.stat().st_nlink == 1
    first = copied.stat()
    image.put_into(store, lambda _event: None)
    assert copied.stat().st_ino == first.st_ino
    source.write_bytes(b"changed")
    image.put_into(store, lambda _event: None)
    assert copied.read_bytes() == b"changed"


def test_an_image_on_a_share_is_read_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEPORT_SMB_USER", "svc")
    monkeypatch.setenv("IMAGEPORT_SMB_DOMAIN", "CORP")
    image = chosen_image("smb://files/vdisks/pvs/Gold.VHDX")
    assert image.name == "Gold"
    assert image.store is not None
    assert image.store.share_values() == {
        "host": "files", "port": 445, "share": "vdisks", "folder": "pvs", "username": "svc",
        "domain": "CORP", "password_variable": "IMAGEPORT_SMB_PASSWORD",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "kind"),
    [
        ("/nowhere/gold.vhdx", FileMissing),
        (__file__, InputError),
        ("smb://files/vdisks/gold.vhdx", InputError),
    ],
    ids=["missing", "no-vhdx", "no-user"],
)
def test_a_wrong_image_is_refused_before_anything_starts(
    argument: str, kind: type[ImageportError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMAGEPORT_SMB_USER", raising=False)
    with pytest.raises(kind):
        chosen_image(argument)


def test_the_users_file_becomes_the_masters_disk_and_is_left_alone(tmp_path: Path) -> None:
    raw, vhdx = tmp_path / "own.raw", tmp_path / "Own.vhdx"
    raw.write_bytes(b"sector" * 1000 + bytes(512 * 1024))
    raw.write_bytes(raw.read_bytes()[: 512 * 1024])
    subprocess.run(["qemu-img", "convert", "-O", "vhdx", raw, vhdx], check=True)
    before = vhdx.read_bytes()
    image = chosen_master(str(vhdx))
    assert image.name == "Own"
    said: list[str] = []
    for _ in range(2):
        image.put_into_vcenter(tmp_path, lambda event: said.append(event.note))
    disk = master_file(tmp_path)
    assert disk.read_bytes()[: 512 * 1024] == raw.read_bytes()
    assert vhdx.read_bytes() == before
    assert [text for text in said if "made of" in text]
    assert said[-1] == "the disk of win11-master is Own.vhdx, unchanged"
    with disk.open("r+b") as file:
        file.write(b"a guest")
    image.put_into_vcenter(tmp_path, lambda _event: None)
    assert disk.read_bytes()[:7] == raw.read_bytes()[:7]


def test_a_masters_disk_comes_from_no_share() -> None:
    with pytest.raises(InputError, match="needed a file on this machine"):
        chosen_master("smb://files/vdisks/gold.vhdx")
    assert chosen_master("").file is None


def test_an_unknown_hypervisor_is_not_embedded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Bad embedded hypervisor: found 'moon', needed vsphere"):
        EmbeddedSite(tmp_path, hypervisor="moon")


def test_a_long_id_is_shown_by_its_name() -> None:
    arm = "/subscriptions/0-1/resourceGroups/lab/providers/Microsoft.Compute/snapshots/gold-1"
    assert (
        short(f"upload: {arm}: 5 bytes sent; '{arm}'.") == "upload: gold-1: 5 bytes sent; 'gold-1'."
    )
    image = "projects/images-1/global/images/imageport-up-0123"
    assert short(f"upload: {image}: 5 bytes sent") == "upload: imageport-up-0123: 5 bytes sent"
    disk = "projects/images-1/zones/europe-west3-a/disks/imageport-work-4"
    assert short(f"Cannot use '{disk}': gone") == "Cannot use 'imageport-work-4': gone"
    assert short("upload: snap-1: 5 bytes sent") == "upload: snap-1: 5 bytes sent"


def test_the_embedded_clouds_are_chosen_by_name() -> None:
    assert chosen_clouds("azure") == ("azure",)
    assert chosen_clouds("all") == ("aws", "azure", "gcp")
    assert chosen_clouds({"azure", "aws"}) == ("aws", "azure")
    for wrong in ("moon", (), {"aws", "moon"}):
        with pytest.raises(InputError, match="Bad embedded cloud"):
            chosen_clouds(wrong)


def test_facts_that_an_earlier_version_kept_still_load() -> None:
    known = {"root", "ui_url", "api_url", "api_auth", "smb_user", "smb_password", "subnet_id"}
    kept = dict.fromkeys(known, "x") | {
        "smb_port": 4450, "aws_endpoint": "http://127.0.0.1:1", "payload_sha256": "0",
    }  # fmt: skip
    facts = SiteFacts(**kept)
    assert facts.clouds() == {"aws": "http://127.0.0.1:1"}
    assert "Azure" not in describe(facts)
    both = SiteFacts(**kept | {"azure_endpoint": "http://127.0.0.1:2"})
    assert both.clouds()["azure"] == "http://127.0.0.1:2"
    assert "Azure endpoint http://127.0.0.1:2" in describe(both)
    targets = {item["name"] for item in block_documents(both) if "target" in item["type"]}
    assert targets == {"aws", "azure"}
    only = SiteFacts(**kept | {"aws_endpoint": "", "azure_endpoint": "http://127.0.0.1:2"})
    assert not [item for item in block_documents(only) if "aws" in item["type"]]
    assert "AWS" not in describe(only)
    assert not [item for item in block_documents(only) if item["name"] == "vcenter"]
    vcenter = SiteFacts(**kept | {"vcenter_port": 4443, "vcenter_user": "exporter"})
    assert "vCenter API    https://127.0.0.1:4443" in describe(vcenter)


def test_an_mcs_run_names_what_an_operator_would(tmp_path: Path) -> None:
    write_installer(tmp_path / "payload" / "citrix", "pvs_target", "1.2.3.4")
    workflow = WORKFLOWS["mcs-to-pvs"]
    parameters = workflow.parameters(tmp_path)
    assert parameters["hypervisor"] == {
        "$ref": {"block_document_slug": "imageport-vsphere/vcenter"}
    }
    assert parameters["vm"] == "/DC0/vm/masters/win11-master"
    chosen = PrepareOptions.model_validate(parameters["options"]).choices("aws")
    (installer,) = chosen.engine.installers
    program = tmp_path / "payload" / installer.path
    assert installer.sha256 == sha256_of(program)
    assert WORKFLOWS["pvs-to-pvs"].parameters(tmp_path) == {}


def test_the_demo_names_the_run_of_a_line_and_misses_none_that_comes_late() -> None:
    said: list[tuple[str, str]] = []

    def record(number: int, run: str, text: str) -> dict[str, Any]:
        return {"id": str(number), "level": 20, "flow_run_id": run, "message": f"publish: {text}"}

    on_time = [record(1, "a", "4 MiB; one"), record(3, "b", "9 MiB; three")]
    answers = [on_time, [on_time[0], record(2, "a", "5 MiB; late"), on_time[1]]]
    states = [SimpleNamespace(is_terminal=False), SimpleNamespace(is_terminal=True)]

    def logs(_runs: list[str], offset: int) -> list[dict[str, Any]]:
        listed = answers[0][offset:]
        if not listed and len(answers) > 1:
            answers.pop(0)
        return listed

    api = SimpleNamespace(
        state=lambda _: states.pop(0), logs=logs, artifacts=lambda _: [],
        child_runs=lambda _: {"a": "gold-aws to cloud", "b": "gold-gcp to cloud"},
    )  # fmt: skip
    watch = RunWatch(api, "run", SimpleNamespace(say=lambda *line: said.append(line)))  # type: ignore[arg-type]
    watch.until_ended(60)
    assert said == [
        ("publish", "gold-aws to cloud: 4 MiB; one"),
        ("publish", "gold-gcp to cloud: 9 MiB; three"),
        ("publish", "gold-aws to cloud: 5 MiB; late"),
    ]
