"""What the sweep finds in project and bucket, and that it takes nothing else."""

from __future__ import annotations

import dataclasses

import pytest

from imageport.cloud import CloudResource
from imageport.clouds.gcp.bucket_inventory import (
    ROLE_BLOCKS,
    ROLE_INDEX,
    ROLE_PARTS,
    BucketInventory,
    delete_from_bucket,
    folders,
)
from imageport.clouds.gcp.images import delete_image
from imageport.clouds.gcp.inventory import ROLE_LEFT, _judged
from imageport.clouds.gcp.names import resource_name, zonal_id
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.upload_markers import ROLE_READING, write_marker
from imageport.clouds.sweep import sweep
from imageport.clouds.tags import ROLE_PREPARED, TAG_ROLE, TAG_SITE
from imageport.errors import CloudRefused, ResourceGone
from tests.clouds.cloud_contract import (
    BLOCKS,
    SITE,
    disk_of,
    generation,
    in_days,
    plan_of,
    put_all,
    uploaded,
)
from tests.clouds.gcp_laboratory import GcpLab

FOLDER = f"imageport/{SITE}/"
PARTS = f"imageport/tmp/{SITE}/archives/"


LASTING = {TAG_SITE: SITE, TAG_ROLE: ROLE_PREPARED}


def objects_of(lab: GcpLab) -> Objects:
    return Objects(lab.account("look"))


def roles(lab: GcpLab, kind: str) -> list[str]:
    found = lab.cloud("look").list_ours(SITE)
    return sorted(item.tags[TAG_ROLE] for item in found if item.kind == kind)


def test_a_finished_image_is_one_thing_and_its_segments_are_none(gcp_lab: GcpLab):
    reference = uploaded(gcp_lab.cloud("run-1"), BLOCKS)
    [found] = gcp_lab.cloud("look").list_ours(SITE)
    assert (found.kind, found.id) == ("snapshot", reference)
    assert gcp_lab.objects(f"{FOLDER}seg/")


def test_an_index_without_its_image_goes_with_its_segments(gcp_lab: GcpLab):
    reference = uploaded(gcp_lab.cloud("run-1"), BLOCKS)
    gcp_lab.account("run-1").mark(reference, "released")
    delete_image(gcp_lab.account("operator"), reference)
    assert roles(gcp_lab, "object") == [ROLE_INDEX]
    (swept,) = sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(2))
    assert swept.note.endswith("0 are needed")
    assert gcp_lab.everything() == []


@pytest.mark.slow
def test_an_index_whose_image_is_being_made_is_left_to_its_run(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    reference = uploaded(gcp_lab.cloud("run-1"), BLOCKS)
    delete_image(gcp_lab.account("operator"), reference)
    # The intent of the image is open and has no id: so it looks just before the image is there.
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(0))
    assert roles(gcp_lab, "object") == [ROLE_INDEX]
    assert account.settings.site == SITE


def test_the_index_of_an_image_that_is_there_cannot_be_deleted(gcp_lab: GcpLab):
    reference = uploaded(gcp_lab.cloud("run-1"), BLOCKS)
    name = reference.rsplit("/", maxsplit=1)[-1]
    account = gcp_lab.account("run-1")
    bucket = account.settings.bucket
    for place in (f"index/{name}", f"out/{name}/"):
        doomed = CloudResource("object", f"gs://{bucket}/{FOLDER}{place}", {TAG_SITE: SITE})
        delete_from_bucket(account, doomed)
    with gcp_lab.cloud("look").open_snapshot(reference) as disk:
        assert disk.read_at(0, 8) == BLOCKS[0][:8]


def test_what_a_dead_machine_wrote_of_a_disk_is_found_and_goes(gcp_lab: GcpLab):
    account, image = gcp_lab.account("run-1"), "imageport-prepared-x"
    intent = account.intend("object", ROLE_READING, image, name=image)
    write_marker(account, intent, resource_name(intent), 0)
    objects_of(gcp_lab).put(f"{FOLDER}out/{image}/00", b"block")
    assert roles(gcp_lab, "object") == [ROLE_READING]
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(2))
    assert gcp_lab.everything() == []


def test_blocks_and_parts_of_nobody_go_when_they_are_old(gcp_lab: GcpLab):
    objects = objects_of(gcp_lab)
    objects.put(f"{FOLDER}out/imageport-prepared-x/00", b"block")
    objects.put(f"{PARTS}imageport-upload-x/head", b"part")
    theirs = "imageport/tmp/paris/archives/imageport-upload-y/head"
    objects.put(theirs, b"part")
    assert roles(gcp_lab, "object") == sorted([ROLE_PARTS, ROLE_BLOCKS])
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(0.2))
    assert len(gcp_lab.objects()) == 3
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(0.3))
    assert gcp_lab.objects() == [theirs]


@pytest.mark.slow
def test_a_killed_upload_is_swept_with_all_its_blocks(gcp_lab: GcpLab):
    target = gcp_lab.cloud("run-1").upload_target("gold")
    handle = target.begin(plan_of(BLOCKS), "t-1")
    put_all(target, BLOCKS)
    target.close()
    [found] = gcp_lab.cloud("look").list_ours(SITE)
    assert (found.kind, found.id) == ("object", handle)
    sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(2))
    assert gcp_lab.everything() == []
    assert gcp_lab.state.ledger.open_entries() == []


@pytest.mark.slow
def test_other_sites_regions_and_buckets_are_left_alone(gcp_lab: GcpLab):
    reference = uploaded(gcp_lab.cloud("run-1"), BLOCKS)
    disk = gcp_lab.cloud("run-1").make_disk(reference, "guid")
    assert gcp_lab.cloud("look").list_ours("paris") == []
    assert gcp_lab.cloud("look", site="paris").list_ours("paris") == []
    elsewhere = gcp_lab.gcp_cloud("sweep", bucket="another-bucket-of-ours")
    listed = elsewhere._account.scope
    assert listed != gcp_lab.cloud("look").scope
    # The bucket of another target: nothing of it is looked at, so only Compute Engine tells.
    here = {item.id for item in gcp_lab.cloud("look").list_ours(SITE)}
    assert here == {reference, disk.id}


@pytest.mark.slow
def test_targets_that_share_a_bucket_judge_only_their_own(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    reference = uploaded(gcp_lab.cloud("run-1"), BLOCKS)
    gcp_lab.cloud("run-1").upload_target("other").begin(plan_of(BLOCKS), "t-2")
    theirs = BucketInventory(gcp_lab.account("run-1"), SITE)
    theirs._here = "gcp/europe-west1/imageport-lab/bucket/"
    assert theirs.resources(frozenset()) == []
    mine = BucketInventory(account, SITE).resources(frozenset())
    assert len(mine) == 2
    assert gcp_lab.cloud("look").exists(reference)


@pytest.mark.parametrize(
    "place",
    [
        "gs://other-bucket/imageport/frankfurt/index/x",
        "gs://{bucket}/imageport/tmp/paris/archives/x/",
        "gs://{bucket}/imageport/tmp/frankfurt/archives/",
        "gs://{bucket}/x",
        "x",
        "",
    ],
)
def test_nothing_outside_of_the_sites_folders_is_deleted(gcp_lab: GcpLab, place: str):
    account = gcp_lab.account("run-1")
    resource = CloudResource("object", place.format(bucket=account.settings.bucket))
    with pytest.raises(ResourceGone, match="it is nothing of this site"):
        delete_from_bucket(account, resource)


def test_a_machine_is_left_behind_only_by_an_image_that_is_gone(gcp_lab: GcpLab):
    """Not by one that is in no list of ours, because somebody changed its labels."""
    account = gcp_lab.account("look")
    name = uploaded(gcp_lab.cloud("run-1"), BLOCKS).rsplit("/", maxsplit=1)[-1]
    found = [
        _judged(
            account,
            CloudResource("instance", zonal_id(account.settings, "instances", item), LASTING),
            frozenset(),
        )
        for item in (name, f"{name}-gone")
    ]
    assert [item.tags[TAG_ROLE] for item in found] == [ROLE_PREPARED, ROLE_LEFT]


def test_what_is_not_the_sites_is_refused(gcp_lab: GcpLab):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    theirs = dataclasses.replace(
        next(item for item in cloud.list_ours(SITE) if item.id == disk.id), tags={TAG_SITE: "paris"}
    )
    with pytest.raises(CloudRefused, match="belongs to site 'paris', not to 'frankfurt'"):
        cloud.delete_resource(theirs)
    assert gcp_lab.disks() == [disk.id]


@pytest.mark.slow
def test_an_image_with_our_label_but_no_tags_of_ours_is_somebody_elses(gcp_lab: GcpLab):
    cloud = gcp_lab.cloud("run-1")
    disk = disk_of(cloud)
    name = disk.id.rsplit("/", maxsplit=1)[-1]
    gcp_lab.clients.images.insert_unary(
        {
            "project": gcp_lab.settings().project,
            "image_resource": {
                "name": f"{name}-copy",
                "source_disk": disk.id,
                "labels": {"imageport-site": SITE},
                "description": "a copy that the operator made",
            },
        }
    )
    assert sorted(item.kind for item in cloud.list_ours(SITE)) == ["disk", "snapshot"]


def test_folders_are_found_without_listing_all_they_hold(gcp_lab: GcpLab):
    objects = objects_of(gcp_lab)
    for name in ("a-b/1", "a/1", "b/1", "b/2", "b0/x/y"):
        objects.put(f"{FOLDER}out/{name}", b"")
    found = [(folder, facts.key) for folder, facts in folders(objects, f"{FOLDER}out/")]
    assert [folder.removeprefix(f"{FOLDER}out/") for folder, _ in found] == [
        "a-b/", "a/", "b/", "b0/",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_catalogue_keeps_an_image_for_ever(gcp_lab: GcpLab):
    cloud = gcp_lab.cloud("run-1")
    reference = uploaded(cloud, BLOCKS)
    gcp_lab.state.catalogue.add(generation(reference))
    assert sweep(gcp_lab.cloud("sweep"), gcp_lab.state, SITE, in_days(4000)) == []
    assert cloud.exists(reference)
    assert gcp_lab.state.ledger.open_entries() == []
