"""Preflight looks at zone, network, machines, quotas and bucket, and says everything at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.cloud import compute_v1
from google.oauth2 import credentials as user_credentials

from imageport.clouds.gcp.clients import GcpClients
from imageport.clouds.gcp.network import RulesOfRun, isolated_rules
from imageport.clouds.gcp.place import check_place
from imageport.errors import CloudRefused, InputError
from imageport.model import GIB
from imageport.sandbox.gcp.account import BOOT_SUBNET, ENGINE_IMAGE, NETWORK, PROJECT, SUBNET
from tests.clouds.gcp_laboratory import GcpLab

SIZE = 64 * GIB
PREFLIGHT = [
    "compute.zones.get", "compute.subnetworks.get", "compute.machineTypes.get",
    "compute.diskTypes.get", "compute.regions.get", "compute.projects.get", "compute.images.get",
    "storage.buckets.get",
]  # fmt: skip


def problems(lab: GcpLab, image: str = "gold", size: int = SIZE, **changes: Any) -> list[str]:
    account = lab.account("run-1", **changes)
    return [str(problem) for problem in check_place(account, image, size)]


def only(found: list[str]) -> str:
    (line,) = found
    return line


@pytest.fixture
def rules(gcp_lab: GcpLab) -> Iterator[RulesOfRun]:
    """Firewall rules such as an operator makes: their tag is isolated."""
    made = isolated_rules(gcp_lab.account("operator"))
    made.make()
    yield made
    made.remove()


def test_a_place_that_fits_has_no_problem_and_is_only_read(gcp_lab: GcpLab, rules: RulesOfRun):
    gcp_lab.service.forget_calls()
    assert problems(
        gcp_lab,
        boot_subnet=BOOT_SUBNET,
        engine_image=ENGINE_IMAGE,
        isolated_network_tag=rules.tags[0],
        engine_network_tags=("engine",),
        labels={"team": "vdi"},
    ) == []  # fmt: skip
    verbs = {permission.rsplit(".", maxsplit=1)[1] for permission in gcp_lab.service.calls()}
    assert verbs <= {"get", "list", "getFromFamily"}


def test_everything_wrong_is_said_at_once(gcp_lab: GcpLab):
    found = problems(
        gcp_lab,
        "g" * 300,
        65537 * GIB,
        site="köln",
        boot_subnet=f"{BOOT_SUBNET}-no",
        engine_machine_type="e9-standard-2",
        bucket="imageport-nowhere",
        kms_key="projects/k-1/locations/us/keyRings/r/cryptoKeys/k",
        engine_image=f"projects/{PROJECT}/global/images/family/nowhere",
    )
    joined = "\n".join(found)
    for words in (
        "300 characters",
        "'köln', needed ASCII",
        "65537 GiB, needed at most 65536 GiB",
        f"boot_subnet: found no '{BOOT_SUBNET}-no'",
        "'e9-standard-2', which 'europe-west3-a' does not offer",
        "bucket: found no 'imageport-nowhere', needed a bucket in 'europe-west3'",
        "kms_key: found a key in 'us', needed one in 'europe-west3'",
        "engine_image: found no",
        "quota SSD_TOTAL_GB",
    ):
        assert words in joined, joined


def test_the_largest_disk_is_no_problem_of_its_size(gcp_lab: GcpLab):
    gcp_lab.service.turn(quotas={"SSD_TOTAL_GB": 1e6})
    assert problems(gcp_lab, size=65536 * GIB) == []
    assert "65537 GiB" in only(problems(gcp_lab, size=65536 * GIB + 1))


def test_a_zone_that_is_not_there_is_said_once(gcp_lab: GcpLab):
    assert only(problems(gcp_lab, zone="europe-west3-z")).startswith("Bad zone: found no")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"boot_machine_type": "n4-standard-2"},
            "boot_machine_type: found 'n4-standard-2', which takes no pd-balanced",
        ),
        (
            {"boot_machine_type": "n4-standard-2", "disk_type": "hyperdisk-balanced"},
            "engine_machine_type: found 'e2-standard-2', which takes no hyperdisk-balanced",
        ),
        (
            {"boot_machine_type": "c3-standard-4", "nic_type": "VIRTIO_NET"},
            "nic_type: found VIRTIO_NET at boot_machine_type 'c3-standard-4', needed GVNIC",
        ),
        (
            {"boot_machine_type": "t2a-standard-1"},
            "boot_machine_type: found 't2a-standard-1' with ARM64, needed x86-64 processors",
        ),
        ({"disk_type": "pd-no"}, "disk_type: found 'pd-no', which 'europe-west3-a' does not offer"),
    ],
)
def test_machines_that_cannot_boot_the_image_or_take_its_disk_are_named(
    gcp_lab: GcpLab, changes: dict[str, Any], problem: str
):
    assert problem in only(problems(gcp_lab, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_machine_type": "c3-standard-4"},
        {"boot_machine_type": "n1-standard-2", "nic_type": "VIRTIO_NET"},
        {
            "engine_machine_type": "n4-standard-2",
            "boot_machine_type": "c4-standard-2",
            "disk_type": "hyperdisk-balanced",
        },
    ],
)
def test_machines_that_can_are_no_problem(gcp_lab: GcpLab, changes: dict[str, Any]):
    assert problems(gcp_lab, **changes) == []


@pytest.mark.parametrize(
    ("quotas", "problem"),
    [
        ({"N2_CPUS": 1}, "quota N2_CPUS: found 1, of which 0 are in use, needed 2 more for the"),
        ({"CPUS": 0}, "quota CPUS: found 0, of which 0 are in use, needed 2 more for the vCPUs of"),
        ({"INSTANCES": 0}, "quota INSTANCES: found 0, of which 0 are in use, needed 1 more"),
        ({"SSD_TOTAL_GB": 70}, "quota SSD_TOTAL_GB: found 70, of which 0 are in use, needed 74"),
        ({"IMAGES": 2}, "quota IMAGES: found 2, of which"),
        ({"FIREWALLS": 1}, "quota FIREWALLS: found 1, of which"),
        ({"CPUS_ALL_REGIONS": 1}, "quota CPUS_ALL_REGIONS: found 1"),
    ],
)
def test_a_quota_that_is_too_small_is_named_before_anything_fails(
    gcp_lab: GcpLab, quotas: dict[str, float], problem: str
):
    gcp_lab.service.turn(quotas=quotas)
    assert problem in only(problems(gcp_lab))


def test_a_stopped_machine_has_its_disk_beside_the_working_disk(gcp_lab: GcpLab):
    gcp_lab.service.turn(quotas={"SSD_TOTAL_GB": 137})
    assert problems(gcp_lab) == []
    line = only(problems(gcp_lab, keep_stopped_vm=True))
    assert "found 137, of which 0 are in use, needed 138 more" in line
    assert "stopped machine's" in line


def test_machines_follow_each_other_so_a_quota_for_one_is_enough(gcp_lab: GcpLab):
    gcp_lab.service.turn(quotas={"CPUS": 2, "N2_CPUS": 2, "INSTANCES": 1, "CPUS_ALL_REGIONS": 2})
    assert problems(gcp_lab) == []


@pytest.mark.parametrize(
    ("bucket", "problem"),
    [
        ({"location": "US-EAST1"}, "in 'us-east1', needed one in 'europe-west3'"),
        ({"location": "US"}, "in 'us', needed one in"),
        (
            {"customPlacementConfig": {"dataLocations": ["EUROPE-WEST1", "EUROPE-WEST4"]}},
            "in 'europe-west1, europe-west4', needed one in",
        ),
        (
            {"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": False}}},
            "found access lists for each object, needed uniform bucket-level access",
        ),
        ({"storageClass": "NEARLINE"}, "found storage class NEARLINE, needed STANDARD"),
        ({"retentionPolicy": {"retentionPeriod": "86400"}}, "a retention policy of 86400 s"),
        ({"defaultEventBasedHold": True}, "objects held by default"),
        ({"billing": {"requesterPays": True}}, "requester pays"),
        ({"autoclass": {"enabled": True}}, "found Autoclass, needed it switched off: blocks are"),
        ({"lifecycle": None}, "no lifecycle rule that deletes what a killed upload left"),
    ],
)
def test_what_has_to_be_mended_at_the_bucket_is_named(
    gcp_lab: GcpLab, bucket: dict[str, Any], problem: str
):
    gcp_lab.service.turn(bucket=bucket)
    line = only(problems(gcp_lab))
    assert line.startswith("Bad bucket: found")
    assert problem in line


@pytest.mark.parametrize(
    "bucket",
    [
        {"location": "EU"},
        {"customPlacementConfig": {"dataLocations": ["EUROPE-WEST3", "EUROPE-WEST4"]}},
        {"softDeletePolicy": {"retentionDurationSeconds": "604800"}},
    ],
)
def test_a_bucket_that_holds_objects_near_enough_is_no_problem(
    gcp_lab: GcpLab, bucket: dict[str, Any]
):
    gcp_lab.service.turn(bucket=bucket)
    assert problems(gcp_lab) == []


def deleting(**condition: Any) -> dict[str, Any]:
    return {"action": {"type": "Delete"}, "condition": {"age": 1} | condition}


def moving(**condition: Any) -> dict[str, Any]:
    action = {"type": "SetStorageClass", "storageClass": "NEARLINE"}
    return {"action": action, "condition": {"age": 30} | condition}


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([deleting(matchesPrefix=["imageport/tmp/"])], []),
        ([deleting(matchesPrefix=["other/", "imageport/t"])], []),
        ([deleting(matchesPrefix=["imageport/tmp/paris/"])], ["no lifecycle rule"]),
        ([deleting(matchesSuffix=[".tmp"])], ["no lifecycle rule"]),
        (
            [deleting(matchesPrefix=["imageport/tmp/"], numNewerVersions=1)],
            ["no lifecycle rule"],
        ),
        (
            [deleting(matchesPrefix=["imageport/"])],
            ["deletes 'imageport/frankfurt/seg/'", "'imageport/frankfurt/out/'",
             "'imageport/frankfurt/index/'", "'imageport/frankfurt/uploads/'"],
        ),
        (
            [deleting(matchesPrefix=["imageport/tmp/"]),
             deleting(matchesPrefix=["imageport/frankfurt/seg/0"])],
            ["deletes 'imageport/frankfurt/seg/'"],
        ),
        (
            [deleting(matchesPrefix=["imageport/tmp/"]), deleting(isLive=False),
             deleting(daysSinceNoncurrentTime=3), deleting(daysSinceCustomTime=3)],
            [],
        ),
        (
            [deleting(matchesPrefix=["imageport/tmp/"]), moving()],
            ["moves 'imageport/frankfurt/seg/'"],
        ),
        (
            [deleting(matchesPrefix=["imageport/tmp/"]),
             moving(matchesPrefix=["imageport/frankfurt/out/"])],
            [],
        ),
    ],
)  # fmt: skip
def test_lifecycle_rules_may_delete_what_is_temporary_and_nothing_that_images_are_read_from(
    gcp_lab: GcpLab, rules: list[dict[str, Any]], found: list[str]
):
    gcp_lab.service.turn(bucket={"lifecycle": {"rule": rules}})
    lines = problems(gcp_lab)
    assert len(lines) == len(found), lines
    for line, words in zip(lines, found, strict=True):
        assert words in line


def test_a_key_has_to_be_just_where_the_bucket_is(gcp_lab: GcpLab):
    """Cloud Storage takes no other, although Compute Engine takes more."""
    for location in ("global", "europe"):
        key = f"projects/k-1/locations/{location}/keyRings/r/cryptoKeys/k"
        found = problems(gcp_lab, kms_key=key)
        needed = "needed one in 'europe-west3', where the bucket is"
        assert f"Bad kms_key: found a key in '{location}', {needed}." in found
    gcp_lab.service.turn(bucket={"location": "EU"})
    found = problems(gcp_lab, kms_key="projects/k-1/locations/europe/keyRings/r/cryptoKeys/k")
    assert not [line for line in found if "where the bucket is" in line]


def test_a_key_that_cannot_be_looked_at_may_be_good(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    ask = gcp_lab.clients.ask

    def off(service: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        if service == "cloudkms":
            raise CloudRefused("Cannot ask: it is off.", gcp_code="SERVICE_DISABLED", status=403)
        return ask(service, method, path, **options)

    monkeypatch.setattr(gcp_lab.clients, "ask", off)
    key = "projects/k-1/locations/europe-west3/keyRings/r/cryptoKeys/k"
    assert problems(gcp_lab, kms_key=key) == []


def test_a_shared_network_asks_for_tags_of_rules_before_anything_is_uploaded(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    shared = compute_v1.Subnetwork(
        name="machines", private_ip_google_access=True, network="projects/host-1/global/networks/n"
    )
    monkeypatch.setattr("imageport.clouds.gcp.place._subnet", lambda *_: shared)
    found = problems(gcp_lab)
    assert [line.split(":")[0] for line in found] == [
        "Bad engine_network_tags", "Bad isolated_network_tag",
    ]  # fmt: skip
    assert all("'projects/host-1/global/networks/n', which is of another" in line for line in found)
    (line,) = problems(gcp_lab, isolated_network_tag="shut", engine_network_tags=("web",))
    assert line.startswith("Bad isolated_network_tag: found 'shut' with no rule")


def test_an_operators_tag_has_to_isolate(gcp_lab: GcpLab, rules: RulesOfRun):
    tag = rules.tags[0]
    assert problems(gcp_lab, isolated_network_tag=tag) == []
    line = only(problems(gcp_lab, isolated_network_tag="nobody"))
    assert "'nobody' with no rule that denies all ingress; no rule that denies all egress" in line


def test_engine_machines_have_to_reach_google_without_an_external_address(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    """The emulated subnets all have access, so that one without is told to the client."""
    without = compute_v1.Subnetwork(
        name="machines", private_ip_google_access=False, network=NETWORK
    )
    proxies = compute_v1.Subnetwork(
        name="proxies", private_ip_google_access=True, purpose="REGIONAL_MANAGED_PROXY",
        network=NETWORK,
    )  # fmt: skip
    answers = {SUBNET: without, BOOT_SUBNET: proxies}
    monkeypatch.setattr(
        "imageport.clouds.gcp.place._subnet", lambda _account, subnet: answers[subnet]
    )
    found = problems(gcp_lab, boot_subnet=BOOT_SUBNET)
    assert "subnet: found 'machines' without Private Google Access" in found[0]
    assert "boot_subnet: found a subnet of purpose REGIONAL_MANAGED_PROXY" in found[1]


def test_somebody_has_to_sign_for_engine_machines(gcp_lab: GcpLab):
    person = user_credentials.Credentials(
        token="", refresh_token="r", client_id="c", client_secret="s", token_uri="https://t.example"
    )
    account = gcp_lab.account("run-1")
    account.clients = GcpClients(account.settings, person)
    from imageport.clouds.gcp.place import _signer  # noqa: PLC0415 - this check asks nobody

    (problem,) = _signer(account)
    assert problem.subject == "signing_account"
    assert "for no service account" in problem.hint


def test_what_the_credentials_may_not_look_at_is_no_problem_of_the_place(gcp_lab: GcpLab):
    gcp_lab.service.turn(denied=PREFLIGHT)
    wrong = {"boot_machine_type": "n9-standard-2", "boot_subnet": f"{BOOT_SUBNET}-no"}
    assert problems(gcp_lab, **wrong) == []
    gcp_lab.service.turn(denied=["compute.machineTypes.get"])
    assert "boot_subnet" in only(problems(gcp_lab, **wrong))


def test_settings_without_a_subnet_are_refused(gcp_lab: GcpLab):
    with pytest.raises(InputError, match="found no subnet"):
        problems(gcp_lab, subnet="")
