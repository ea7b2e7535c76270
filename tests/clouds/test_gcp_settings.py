"""Google Cloud settings refuse contradictions at once, and names follow from what is asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from imageport.clouds.gcp.names import (
    DESCRIPTION_CHARACTERS,
    ResourceId,
    description_of,
    expires_label,
    image_id,
    label_value,
    labels_of,
    parse_id,
    resource_name,
    site_folder,
    tags_of,
    temporary_folder,
    temporary_root,
    zonal_id,
)
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.intents import Intent
from imageport.clouds.tags import (
    TAG_EXPIRES,
    TAG_NAME,
    TAG_ROLE,
    TAG_RUN,
    TAG_SITE,
    TAG_TOKEN,
)
from imageport.errors import InputError, ResourceGone
from imageport.state.records import LedgerEntry

SUBNET = "projects/network-1/regions/europe-west3/subnetworks/machines"
KEY = "projects/keys-1/locations/europe-west3/keyRings/vdi/cryptoKeys/images"
EXPIRES = "2026-01-01T06:00:00+00:00"


def settings(**changes: Any) -> GcpSettings:
    known = {
        "project": "images-1",
        "region": "europe-west3",
        "zone": "europe-west3-a",
        "bucket": "golden-images",
    }
    return GcpSettings(**(known | changes))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"project": ""}, "project is missing"),
        ({"bucket": ""}, "bucket is missing"),
        ({"project": "Images"}, "project 'Images' is none like"),
        ({"region": "Frankfurt"}, "region 'Frankfurt' is none like"),
        ({"zone": "europe-west3"}, "zone 'europe-west3' is none like"),
        ({"zone": "europe-west1-b"}, "zone 'europe-west1-b' is not in region 'europe-west3'"),
        ({"bucket": "gs://golden"}, "bucket 'gs://golden' is none like"),
        ({"prefix": "/imageport"}, "prefix '/imageport' is none like"),
        ({"prefix": "a//b"}, "prefix 'a//b' is none like"),
        ({"subnet": "machines"}, "subnet 'machines' is none like"),
        (
            {"boot_subnet": SUBNET.replace("west3", "west1")},
            "is not in region 'europe-west3'",
        ),
        ({"engine_image": "debian-12"}, "engine_image 'debian-12' is none like"),
        ({"kms_key": "images"}, "kms_key 'images' is none like"),
        ({"isolated_network_tag": "Isolated"}, "isolated_network_tag 'Isolated' is none like"),
        ({"archive": "zip"}, "archive 'zip' is none of segments, stream"),
        ({"nic_type": "E1000"}, "nic_type 'E1000' is none of GVNIC, VIRTIO_NET"),
        ({"labels": {"Team": "vdi"}}, "label 'Team=vdi' has other characters"),
        ({"labels": {"team": "V D I"}}, "label 'team=V D I' has other characters"),
        ({"labels": {"imageport-site": "x"}}, "is one of imageport's own"),
        ({"labels": {f"l{number}": "" for number in range(51)}}, "51 labels, 50 is the most"),
        ({"boot_egress_cidrs": ("10.0.0.0/33",)}, "boot_egress_cidrs"),
        (
            {"boot_egress_cidrs": ("10.0.0.0/8",), "isolated_network_tag": "shut"},
            "beside isolated_network_tag",
        ),
        ({"endpoint_url": "https://a.example/path"}, "is no http(s)://HOST:PORT"),
        (
            {"endpoint_url": "https://a.example", "private_service_connect": "images"},
            "endpoint_url beside private_service_connect",
        ),
    ],
)
def test_a_contradiction_is_refused_by_name(changes: dict[str, Any], problem: str):
    with pytest.raises(InputError) as caught:
        settings(**changes)
    assert any(problem in found for found in caught.value.fields["problems"])


def test_everything_wrong_is_said_at_once():
    with pytest.raises(InputError) as caught:
        settings(project="", archive="zip", subnet="x", kms_key="y", endpoint_url="far")
    assert len(caught.value.fields["problems"]) == 6  # the subnet is in no region either


def test_a_proxy_is_never_shown():
    assert "5ecre7" not in repr(settings(proxy="http://worker:5ecre7@proxy:3128"))


def test_what_a_step_needs_is_asked_for_by_name():
    with pytest.raises(InputError, match="found no subnet, kms_key, needed"):
        settings().require("subnet", "bucket", "kms_key")


@pytest.mark.parametrize(
    ("changes", "base"),
    [
        ({}, "https://compute.googleapis.com"),
        ({"private_service_connect": "images"}, "https://compute-images.p.googleapis.com"),
        ({"endpoint_url": "http://127.0.0.1:8080/"}, "http://127.0.0.1:8080"),
    ],
)
def test_every_api_is_asked_at_the_settings_own_address(changes: dict[str, Any], base: str):
    assert settings(**changes).endpoint("compute") == base


def test_the_scope_names_region_project_and_bucket_but_no_zone():
    assert settings().scope == "gcp/europe-west3/images-1/golden-images"
    assert settings(zone="europe-west3-c").scope == settings().scope


def intent(entry_id: str = "entry-1", role: str = "upload") -> Intent:
    entry = LedgerEntry(
        id=entry_id, kind="object", token="gcp/x/1234", run="r", site="s",
        created="2026-01-01T00:00:00+00:00", expires=EXPIRES,
    )  # fmt: skip
    return Intent(entry, {TAG_ROLE: role})


def test_a_name_is_the_same_after_a_crash_and_new_after_a_deletion():
    assert resource_name(intent()) == resource_name(intent())
    assert resource_name(intent()) != resource_name(intent("entry-2"))
    assert resource_name(intent()).startswith("imageport-upload-")


@pytest.mark.parametrize("role", ["upload", "uploaded", "prepared", "engine", "segments", "boot"])
def test_a_name_is_one_that_google_takes(role: str):
    name = resource_name(intent(role=role))
    assert parse_id(image_id(settings(), name), "images").name == name
    assert len(name) <= 63


def test_an_id_is_taken_apart_whatever_host_stands_before_it():
    disk = zonal_id(settings(), "disks", "imageport-work-1")
    for text in (disk, f"https://www.googleapis.com/compute/v1/{disk}"):
        assert parse_id(text, "disks") == ResourceId(
            "images-1", "europe-west3-a", "disks", "imageport-work-1"
        )
    assert str(parse_id(disk, "disks")) == disk


@pytest.mark.parametrize(
    "text", ["", "snap-0123456789abcdef0", "projects/p/global/images/", "projects/p/images/a",
             "gs://golden-images/imageport/x", "projects/p/global/images/UPPER",
             "projects/p/regions/r/images/a"],
)  # fmt: skip
def test_what_is_no_id_names_nothing_that_exists(text: str):
    with pytest.raises(ResourceGone):
        parse_id(text, "images")


def test_an_id_of_another_type_is_refused():
    with pytest.raises(ResourceGone, match="needed one of images"):
        parse_id(zonal_id(settings(), "disks", "a"), "images")


@pytest.mark.parametrize("text", ["frankfurt", "Frankfurt", "Köln/Süd", "x" * 64, "a b", ""])
def test_any_text_becomes_a_label_and_different_texts_different_ones(text: str):
    value = label_value(text)
    assert len(value) <= 63
    assert set(value) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert label_value(text + "!") != value


def test_sites_whose_names_look_alike_as_labels_keep_folders_of_their_own():
    folders = {site_folder(settings(site=site)) for site in ("a/b", "a-b", "A-b", "a b")}
    assert len(folders) == 4
    assert all(folder.startswith("imageport/") and folder.endswith("/") for folder in folders)


def test_no_site_may_lie_where_the_temporary_objects_of_all_sites_lie():
    with pytest.raises(InputError, match="site 'tmp' is where all sites' temporary objects lie"):
        settings(site="tmp")
    assert site_folder(settings(site="TMP")) != temporary_root(settings())
    assert temporary_folder(settings(site="a/b")).startswith(temporary_root(settings()))


TAGS = {
    TAG_SITE: "frankfurt", TAG_RUN: "run-1", TAG_ROLE: "upload", TAG_EXPIRES: EXPIRES,
    TAG_TOKEN: "gcp/europe-west3/images-1/golden-images/0123",
}  # fmt: skip


def test_the_exact_tags_come_back_from_a_description_with_the_newer_expiry_of_the_label():
    described = description_of(TAGS, "gold, uploaded")
    labels = labels_of(settings(labels={"team": "vdi"}), TAGS)
    assert tags_of(described, labels) == TAGS
    assert labels["team"] == "vdi"
    later = datetime(2026, 1, 2, tzinfo=UTC)
    renewed = tags_of(described, labels | {"imageport-expires": expires_label(later)})
    assert renewed == TAGS | {TAG_EXPIRES: later.isoformat()}


def test_a_description_never_outgrows_what_google_takes():
    assert len(description_of(TAGS, "ä" * 5000)) <= DESCRIPTION_CHARACTERS
    largest = TAGS | {TAG_SITE: "s" * 256, TAG_RUN: "r" * 256}
    assert tags_of(description_of(largest, "ä" * 5000), {}) == largest
    named = largest | {TAG_NAME: "\U00020000" * 200}  # each character takes twelve as JSON
    described = tags_of(description_of(named, "gold"), {})
    kept = described.pop(TAG_NAME)
    assert (described, kept) == (largest, "\U00020000" * len(kept))
    assert len(kept) == 100
    with pytest.raises(InputError, match=r"found \d{4} characters, needed 2048 at most"):
        description_of(TAGS | {TAG_SITE: "s" * 2000})


@pytest.mark.parametrize("text", ["", "made by hand", "[]", '{"imageport": 3}', '{"about": ""}'])
def test_a_description_of_somebody_elses_has_no_tags(text: str):
    assert tags_of(text, {"imageport-site": "frankfurt"}) == {}
