"""The process: it starts, says what it is asked, keeps its place, and serves Google's clients."""

from __future__ import annotations

import io
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.auth import identity_pool
from google.cloud import storage
from google.oauth2 import service_account

from imageport.sandbox.gcp.account import BUCKET, PROJECT
from imageport.sandbox.gcp.service import GcpService
from imageport.sandbox.gcp.token_store import CLOUD_PLATFORM


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcpService]:
    with GcpService(tmp_path_factory.mktemp("gcp-service"), state_seconds=0.0) as running:
        yield running


def client_of(service: GcpService, credentials: Any) -> storage.Client:
    options = {"api_endpoint": service.endpoint}
    return storage.Client(project=PROJECT, credentials=credentials, client_options=options)


def test_googles_client_writes_joins_lists_and_reads(service: GcpService) -> None:
    read: Callable[..., Any] = service_account.Credentials.from_service_account_file
    client = client_of(service, read(str(service.credentials_file), scopes=[CLOUD_PLATFORM]))
    bucket = client.bucket(BUCKET)
    data = bytes(range(256)) * 4096
    small, large = bucket.blob("clients/small"), bucket.blob("clients/large", chunk_size=1 << 18)
    small.upload_from_string(b"small", checksum="crc32c", if_generation_match=0)
    large.upload_from_file(io.BytesIO(data), checksum="crc32c")
    joined = bucket.blob("clients/joined")
    joined.compose([small, large], if_generation_match=0)
    assert joined.download_as_bytes(checksum="crc32c") == b"small" + data
    names = [blob.name for blob in client.list_blobs(BUCKET, prefix="clients/")]
    assert names == ["clients/joined", "clients/large", "clients/small"]
    bucket.delete_blobs([small, large, joined])
    assert not small.exists()
    client.close()


def test_a_federated_worker_uses_it_too(service: GcpService) -> None:
    read: Callable[..., Any] = identity_pool.Credentials.from_file
    client = client_of(service, read(str(service.federation_file), scopes=[CLOUD_PLATFORM]))
    blob = client.bucket(BUCKET).blob("federated")
    blob.upload_from_string(b"x")
    assert blob.download_as_bytes() == b"x"
    client.close()


def test_it_tells_what_was_asked_and_forgets_when_told(service: GcpService) -> None:
    assert any(item["name"] == "federated" for item in service.objects())
    assert "storage.objects.create" in service.calls()
    assert service.requests()["storage.objects.insert"]["class"] == "A"
    service.forget_calls()
    assert service.calls() == []
    assert service.machines() == []
    assert service.violations() == []


def test_knobs_that_do_not_exist_are_refused(service: GcpService) -> None:
    with pytest.raises(ValueError, match="Bad knobs"):
        service.turn(unknown=1)
    with pytest.raises(urllib.error.HTTPError):
        service._ask("nothing")


def test_a_killed_service_comes_back_where_it_was(tmp_path: Path) -> None:
    root = tmp_path / "gcp"
    with GcpService(root) as first:
        endpoint, key = first.endpoint, first.credentials_file.read_text()
        assert first.credentials_file.stat().st_mode & 0o077 == 0
        first.kill()
        first.stop()
        with GcpService(root) as second:
            assert second.endpoint == endpoint
            assert second.credentials_file.read_text() == key
