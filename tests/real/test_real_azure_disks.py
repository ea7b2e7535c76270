"""Managed disks and their signed URLs: what only the service can say. About 0.02 USD together."""

from __future__ import annotations

import base64
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from azure.core.rest import HttpRequest
from azure.mgmt.compute.models import GrantAccessData

from imageport.clouds.azure.disks import describe_disk
from imageport.clouds.azure.footer import FOOTER_BYTES, vhd_footer
from imageport.clouds.azure.names import DISKS, parse_id
from imageport.clouds.azure.page_client import SERVICE_VERSION
from imageport.clouds.azure.snapshots import describe_snapshot
from imageport.errors import CloudError, CloudThrottled, ResourceGone
from imageport.model import GIB, MIB
from tests.clouds.cloud_contract import BLOCKS, digest, plan_of, uploaded
from tests.real.conftest import Observed
from tests.real.probes import probes
from tests.real.real_azure import SMALLEST_BYTES, RealAzure

DAY_SECONDS = 86400
DATA = bytes(range(256)) * 2


def put(azure: RealAzure, url: str, checksum: dict[str, str]) -> tuple[int, str]:
    """Put one page with a header and return status and code."""
    headers = {
        "x-ms-version": SERVICE_VERSION,
        "x-ms-page-write": "update",
        "x-ms-range": f"bytes=0-{len(DATA) - 1}",
        "Content-Length": str(len(DATA)),
        **checksum,
    }
    request = HttpRequest("PUT", f"{url}&comp=page", headers=headers, content=DATA)
    answer: Any = azure.clients.data.send_request(request)
    return answer.status_code, answer.headers.get("x-ms-error-code", "")


@probes("azure-checksums")
def test_a_wrong_checksum_is_refused(azure: RealAzure, observed: Observed):
    right = base64.b64encode(hashlib.md5(DATA, usedforsecurity=False).digest()).decode()
    wrong = base64.b64encode(bytes(16)).decode()
    with azure.upload_disk("checksums") as disk_id, azure.access(disk_id, "Write") as grant:
        url = grant.url()
        found = {
            "no checksum": put(azure, url, {}),
            "right MD5": put(azure, url, {"Content-MD5": right}),
            "wrong MD5": put(azure, url, {"Content-MD5": wrong}),
            "wrong CRC64": put(azure, url, {"x-ms-content-crc64": "AAAAAAAAAAA="}),
        }
    observed(str(found))
    assert found["right MD5"][0] == 201
    assert found["wrong MD5"] == (400, "Md5Mismatch")


@probes("azure-write-url-reads")
def test_the_url_for_writing_reads_and_lists_too(azure: RealAzure, observed: Observed):
    with azure.upload_disk("reads") as disk_id, azure.access(disk_id, "Write") as grant:
        pages, url = azure.pages(disk_id), grant.url()
        footer = vhd_footer(SMALLEST_BYTES, disk_id)
        pages.put(url, SMALLEST_BYTES, footer)
        found = {}
        try:
            found["Get Blob"] = str(pages.get(url, SMALLEST_BYTES, FOOTER_BYTES) == footer)
        except CloudError as error:
            found["Get Blob"] = error.message
        try:
            listed = list(pages.ranges(url, 0, SMALLEST_BYTES + FOOTER_BYTES))
            found["Get Page Ranges"] = str(listed)
        except CloudError as error:
            found["Get Page Ranges"] = error.message
    observed(str(found))
    assert found["Get Blob"] == "True"
    assert found["Get Page Ranges"] == str([(SMALLEST_BYTES, SMALLEST_BYTES + FOOTER_BYTES)])


@probes("azure-longest-access")
def test_for_how_long_access_is_granted(azure: RealAzure, observed: Observed):
    found: dict[int, str] = {}
    for days in (1, 60, 61, 365):
        with azure.upload_disk(f"days-{days}") as disk_id:
            named = parse_id(disk_id, DISKS)
            wanted = GrantAccessData(access="Write", duration_in_seconds=days * DAY_SECONDS)
            try:
                azure.clients.compute.disks.begin_grant_access(
                    named.group, named.name, wanted
                ).result()
                found[days] = "granted"
            except Exception as error:
                found[days] = type(error).__name__
    observed(f"days: {found}")
    assert found[1] == "granted"


@probes("azure-delete-while-uploading")
def test_a_disk_that_is_being_uploaded_cannot_be_deleted(azure: RealAzure, observed: Observed):
    with azure.upload_disk("delete") as disk_id, azure.access(disk_id, "Write") as grant:
        grant.url()
        named = parse_id(disk_id, DISKS)
        try:
            azure.clients.compute.disks.begin_delete(named.group, named.name).result()
            said = "deleted"
        except Exception as error:
            said = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        state = describe_disk(azure.account(), disk_id)
    observed(f"{said}; state {state.state if state else 'gone'}")
    assert said != "deleted"


@probes("azure-bad-footer")
def test_a_disk_without_a_footer_is_refused_when_access_ends(azure: RealAzure, observed: Observed):
    with azure.upload_disk("footer") as disk_id:
        with azure.access(disk_id, "Write") as grant:
            azure.pages(disk_id).put(grant.url(), 0, DATA)
            try:
                azure.revoke(disk_id)
                said = "taken"
            except CloudError as error:
                said = error.message
        facts = describe_disk(azure.account(), disk_id)
    observed(f"{said[:300]}; then {facts}")
    assert "conectix" in said


@probes("azure-upload-rate")
def test_how_fast_an_s4_disk_takes_pages(azure: RealAzure, observed: Observed):
    size, piece, throttled = 32 * GIB, 4 * MIB, 0
    total = int(azure.named.get("rate_mib", "1024")) * MIB
    data = bytes([7]) * piece
    with azure.upload_disk("rate", size) as disk_id, azure.access(disk_id, "Write") as grant:
        pages, url = azure.pages(disk_id), grant.url()

        def send(offset: int) -> int:
            try:
                pages.put(url, offset, data)
            except CloudThrottled:
                return 1
            return 0

        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            throttled = sum(pool.map(send, range(0, total, piece)))
        seconds = time.monotonic() - began
    rate = total / MIB / seconds
    observed(f"{rate:.0f} MiB/s with 16 in flight, {throttled} puts answered by ServerBusy")
    assert rate < 120 or throttled


@probes("azure-two-grants")
def test_two_readers_of_one_snapshot(azure: RealAzure, observed: Observed):
    cloud = azure.cloud()
    reference = uploaded(cloud, BLOCKS)
    with azure.access(reference, "Read") as one, azure.access(reference, "Read") as two:
        first = one.url()
        during = describe_snapshot(azure.account(), reference)
        try:
            second = "the same URL" if two.url() == first else "another URL"
        except CloudError as error:
            second = error.message
        azure.revoke(reference)
        try:
            azure.pages(reference).get(first, 0, 512)
            after = "still opens"
        except (CloudError, ResourceGone) as error:
            after = error.message
    state = during.state if during else "gone"
    observed(f"state {state}; second grant: {second[:200]}; after one revoke: {after[:200]}")
    assert state == "ActiveSAS"
    assert after != "still opens"


@probes("azure-copy-from-snapshot", "azure-snapshot-completion")
def test_a_new_disk_takes_its_blocks_from_a_snapshot(azure: RealAzure, observed: Observed):
    cloud = azure.cloud()
    began = time.monotonic()
    parent = uploaded(cloud, BLOCKS, token="parent")
    seconds = time.monotonic() - began
    target = cloud.upload_target("probe", parent=parent)
    target.begin(plan_of(BLOCKS), "child")
    kept = {index: data for index, data in BLOCKS.items() if any(data)}
    for index in kept:
        target.take_from_parent(index, 1)
    child = target.commit({index: digest(data) for index, data in kept.items()})
    same = dict(target.read_back(kept)) == kept
    target.close()
    observed(f"copied {len(kept)} blocks, equal: {same}; first upload and snapshot {seconds:.0f} s")
    assert same
    assert cloud.exists(child)
