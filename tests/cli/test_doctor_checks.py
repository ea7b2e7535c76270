"""What the doctor looks at without a server: folders, state, files, clouds, and where to grant."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imageport.cli.main import main
from imageport.cloud import PermissionGap, PlaceProblem
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.memory import MemoryCloud
from imageport.doctor.check import all_well
from imageport.doctor.grants import azure_grant, gcp_grant
from imageport.doctor.places import cloud_checks, folder_checks, payload_checks, state_checks
from imageport.errors import CloudUnavailable, InputError, ShareUnreachable
from imageport.state.store import StateStore
from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder

ID = "11111111-2222-3333-4444-555555555555"
GROUP = f"/subscriptions/{ID}/resourceGroups/vdi"
SUBNET = f"{GROUP}/providers/Microsoft.Network/virtualNetworks/lab/subnets/machines"
PLACE = {"subscription_id": ID, "resource_group": "vdi", "location": "westeurope"}


def test_a_folder_is_listed_and_written_to_without_a_trace(tmp_path: Path) -> None:
    reached, written = folder_checks("store", lambda: LocalFolder(tmp_path), writes=True)
    assert reached.passed
    assert written.passed
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_is_told_and_stops_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Folder, name: str) -> None:
        raise InputError(f"Cannot create '{name}': access is denied.")

    monkeypatch.setattr(LocalFolder, "create", refuse)
    reached, written = folder_checks("store", lambda: LocalFolder(tmp_path), writes=True)
    assert (reached.mark, written.mark) == ("ok", "note")
    assert "access is denied" in written.found
    assert all_well([reached, written])


def test_a_share_that_is_not_there_is_one_failed_check() -> None:
    def nowhere() -> Folder:
        raise ShareUnreachable("Cannot reach 'files'.", hint="Look at the cable.")

    (check,) = folder_checks("store", nowhere, writes=True)
    assert (check.mark, check.found, check.mend) == (
        "FAIL", "Cannot reach 'files'.", "Look at the cable.",
    )  # fmt: skip


def test_a_state_store_is_ready_when_a_lease_can_be_taken() -> None:
    state = StateStore(MemoryFolder())

    @contextmanager
    def opened() -> Iterator[StateStore]:
        yield state

    for _ in range(2):
        assert [check.passed for check in state_checks(opened)] == [True, True]
    with state.lease("imageport-doctor", "somebody", 30.0):
        assert "another doctor" in state_checks(opened)[1].found


def test_files_whose_digest_is_not_the_pinned_one_are_told() -> None:
    @contextmanager
    def changed() -> Iterator[Path | None]:
        raise InputError("Bad payload folder: found sha256 b, needed a.", hint="Review it.")
        yield None

    (check,) = payload_checks(changed)
    assert (check.mark, check.mend) == ("FAIL", "Review it.")


class _Lacking(MemoryCloud):
    """A cloud that permits nothing and has no room; anything may be missing."""

    def check_permissions(self) -> list[PermissionGap]:
        return [PermissionGap("Microsoft.Compute/disks/write", "upload", "denied")]

    def check_place(self, image: str, size_bytes: int) -> list[PlaceProblem]:
        assert size_bytes == 64 * 2**30, image
        return [PlaceProblem("vCPU quota", "0", "2", "Ask for more.")]


def opened_memory(kind: type[MemoryCloud]) -> MemoryCloud:
    return kind(StateStore(MemoryFolder()).ledger, "doctor", site="site")


def test_a_cloud_that_lacks_nothing_is_two_good_checks() -> None:
    checks = cloud_checks("azure", lambda: opened_memory(MemoryCloud), lambda _action: "you")
    assert [check.name for check in checks] == ["azure", "azure, room and machines"]
    assert all_well(checks)


def test_every_missing_action_says_where_to_grant_it_and_room_is_looked_at_all_the_same() -> None:
    settings = AzureSettings(**PLACE)
    gap, room = cloud_checks(
        "azure", lambda: opened_memory(_Lacking), lambda action: azure_grant(settings, action)
    )
    assert gap.mend == (
        "Grant Microsoft.Compute/disks/write (for upload) to the worker's identity at "
        f"/subscriptions/{ID}/resourceGroups/vdi."
    )
    assert room.found == "Bad vCPU quota: found 0, needed 2."
    assert room.mend == "Ask for more."


def test_what_could_not_be_asked_is_not_called_permitted() -> None:
    class Mute(MemoryCloud):
        def check_permissions(self) -> list[PermissionGap]:
            return [PermissionGap("an.api", "preflight", "cannot ask", optional=True)]

    first, note, _room = cloud_checks("gcp", lambda: opened_memory(Mute), lambda _action: "you")
    assert (first.mark, first.found) == ("ok", "no action that a run needs was denied")
    assert (note.mark, note.found) == ("note", "cannot ask")


def test_a_cloud_that_cannot_be_asked_is_a_failed_check() -> None:
    def unreachable() -> MemoryCloud:
        raise CloudUnavailable("Cannot reach 'azure'.")

    (check,) = cloud_checks("azure", unreachable, lambda _action: "you")
    assert check.mark == "FAIL"


@pytest.mark.parametrize(
    ("action", "scope"),
    [
        ("Microsoft.Compute/disks/beginGetAccess/action", GROUP),
        ("Microsoft.Network/networkSecurityGroups/write", GROUP),
        ("Microsoft.Network/virtualNetworks/subnets/join/action", SUBNET),
        (
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",
            "https://a.blob.core.windows.net/jobs",
        ),
        ("Microsoft.Compute/locations/usages/read", f"/subscriptions/{ID}"),
        ("Microsoft.Compute/skus/read", f"/subscriptions/{ID}"),
        ("Microsoft.Compute/diskEncryptionSets/read", GROUP),
    ],
)
def test_an_azure_action_is_granted_where_its_resource_lies(action: str, scope: str) -> None:
    settings = AzureSettings(
        **PLACE, subnet_id=SUBNET, job_container_url="https://a.blob.core.windows.net/jobs"
    )
    assert azure_grant(settings, action) == f"the worker's identity at {scope}"


GCP_SUBNET = "projects/network-1/regions/europe-west3/subnetworks/machines"


@pytest.mark.parametrize(
    ("permission", "place"),
    [
        ("compute.images.create", "the worker's identity at project 'images-1'"),
        ("storage.objects.create", "the worker's identity at bucket 'golden'"),
        ("compute.subnetworks.use", f"the worker's identity at {GCP_SUBNET}"),
        (
            "iam.serviceAccounts.signBlob",
            "the worker's identity at service account 'of the worker'",
        ),
        (
            "cloudresourcemanager.googleapis.com",
            "project 'images-1' by enabling that API, if its id is right",
        ),
    ],
)
def test_a_google_cloud_permission_is_granted_where_its_resource_lies(
    permission: str, place: str
) -> None:
    settings = GcpSettings(
        project="images-1", region="europe-west3", zone="europe-west3-a", bucket="golden",
        subnet=GCP_SUBNET,
    )  # fmt: skip
    assert gcp_grant(settings, permission) == place


def arguments(*words: str) -> list[str]:
    return ["sweep", "--state", "/nowhere", "--site", "cloud", *words]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--cloud", "azure"], "subscription_id is missing; resource_group is missing"),
        (["--cloud", "azure", "--region", "eu-central-1"], "--region, which mean nothing at azure"),
        (["--cloud", "aws", "--location", "westeurope"], "--location, which mean nothing at aws"),
        (["--cloud", "aws", "--project", "images-1"], "--project, which mean nothing at aws"),
        (["--cloud", "aws", "--prefix", "golden"], "--prefix, which mean nothing at aws"),
        (["--cloud", "gcp"], "project is missing; region is missing; zone is missing; bucket is"),
        (["--cloud", "gcp", "--prefix", "a b"], "prefix 'a b'"),
        (["--cloud", "gcp", "--environment", "china"], "--environment, which mean nothing at gcp"),
        (
            ["--cloud", "azure", "--subscription", "mine", "--resource-group", "vdi"],
            "subscription_id 'mine' is no GUID",
        ),
    ],
    ids=[
        "nothing",
        "region",
        "location",
        "project",
        "prefix",
        "gcp",
        "folder",
        "environment",
        "guid",
    ],
)
def test_a_cloud_that_is_named_wrongly_is_wrong_usage(
    words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = arguments(*words)
    argv[2] = str(tmp_path)
    assert main(argv) == 2
    assert problem in capsys.readouterr().err


def test_a_site_without_a_server_is_wrong_usage(tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    done = subprocess.run(
        [Path(sys.executable).with_name("imageport"), "doctor", "onprem"],
        env={**variables, "PREFECT_HOME": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "no Prefect server is named" in done.stderr
    assert "PREFECT_API_URL" in done.stderr


def test_a_target_without_a_site_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--target", "imageport-aws-target/aws"]) == 2
    assert "without SITE" in capsys.readouterr().err
