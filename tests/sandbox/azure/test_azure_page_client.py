"""The product's own page client against the sandbox, and against an emulator of other people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.credentials import laboratory_credential
from imageport.clouds.azure.footer import vhd_footer
from imageport.clouds.azure.page_client import PageClient
from imageport.clouds.azure.settings import AzureSettings
from imageport.errors import CloudError
from imageport.model import MIB
from imageport.sandbox.azure.account import LOCATION, RESOURCE_GROUP, SUBSCRIPTION
from tests.sandbox.azure.azurite_faces import BLOB_BYTES, FACES, SIZE, Face, OwnFace, running_face

PAGE = bytes(range(256)) * 2


@pytest.fixture(scope="module", params=FACES)
def face(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face]:
    with running_face(request.param, tmp_path_factory.mktemp("face")) as running:
        yield running


@pytest.fixture(scope="module")
def clients() -> Iterator[AzureClients]:
    endpoint = "http://127.0.0.1:9"  # nobody listens: the data path needs no resource manager
    settings = AzureSettings(
        subscription_id=SUBSCRIPTION,
        resource_group=RESOURCE_GROUP,
        location=LOCATION,
        site="berlin",
        endpoint_url=endpoint,
    )
    made = AzureClients(settings, laboratory_credential(endpoint))
    yield made
    made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnFace]:
    made = OwnFace(tmp_path)
    yield made
    made.close()


@pytest.fixture
def pages(clients: AzureClients) -> PageClient:
    return PageClient(clients, "disk")


def test_what_the_client_puts_it_gets_and_lists(face: Face, pages: PageClient) -> None:
    url = face.writable_url()
    pages.put(url, 4096, PAGE * 4)
    pages.clear(url, 5120, 512)
    assert pages.get(url, 4096, 2048) == PAGE * 2 + bytes(512) + PAGE
    assert list(pages.ranges(url, 0, BLOB_BYTES)) == [(4096, 5120), (5632, 6144)]
    assert list(pages.ranges(url, 5120, 5632)) == []
    assert pages.checksums


def test_the_client_puts_as_much_as_one_request_takes(face: Face, pages: PageClient) -> None:
    url = face.writable_url()
    data = PAGE * (4 * MIB // 512)
    pages.put(url, 4 * MIB, data)
    assert pages.get(url, 4 * MIB, 4 * MIB) == data
    assert list(pages.ranges(url, 0, BLOB_BYTES)) == [(4 * MIB, 8 * MIB)]


def test_the_footer_is_written_at_the_very_end(face: Face, pages: PageClient) -> None:
    url = face.writable_url()
    footer = vhd_footer(SIZE, "/subscriptions/x/disks/y")
    pages.put(url, SIZE, footer)
    assert pages.get(url, SIZE, 512) == footer
    assert list(pages.ranges(url, 0, BLOB_BYTES)) == [(SIZE, BLOB_BYTES)]


def test_a_refused_url_is_a_refusal_of_the_data_path(face: Face, pages: PageClient) -> None:
    expired, readable = face.expired_url(), face.readable_url()
    for attempt in (lambda: pages.get(expired, 0, 512), lambda: pages.put(readable, 0, PAGE)):
        with pytest.raises(CloudError) as error:
            attempt()
        assert error.value.fields["status"] == 403
        assert "sig=" not in f"{error.value!r} {error.value} {error.value.fields}"


def test_reading_past_the_end_is_no_matter_of_access(face: Face, pages: PageClient) -> None:
    with pytest.raises(CloudError) as error:
        pages.get(face.writable_url(), BLOB_BYTES + 512, 512)
    assert error.value.fields["status"] == 416


def test_the_client_goes_on_where_checksums_are_refused(own: OwnFace, pages: PageClient) -> None:
    own.knobs.checksum_refused = True
    url = own.writable_url()
    pages.put(url, 0, PAGE)
    assert pages.get(url, 0, 512) == PAGE
    assert not pages.checksums


def test_pages_are_copied_from_a_snapshot(own: OwnFace, pages: PageClient) -> None:
    source = own.grant(own.new_disk(PAGE * 8), "Read")
    url = own.writable_url()
    pages.copy(url, 512, 2048, source)
    assert pages.get(url, 0, 4096) == bytes(512) + PAGE * 4 + bytes(1536)


def test_the_two_footers_agree_on_what_azure_looks_at(own: OwnFace, pages: PageClient) -> None:
    disk = own.new_upload()
    pages.put(own.grant(disk, "Write"), SIZE, vhd_footer(SIZE, disk))
    own.store.revoke(disk)
    assert own.store.state(disk) == "Unattached"
