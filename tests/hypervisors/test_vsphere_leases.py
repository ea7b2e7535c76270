"""An export lease and what it may say, well or badly: decided without a vCenter."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyVmomi import vim

from imageport.errors import (
    CertificateRefused,
    ExportInterrupted,
    HypervisorRefused,
    HypervisorUnreachable,
)
from imageport.hypervisors.vsphere import lease as lease_module
from imageport.hypervisors.vsphere.lease import ExportLease, LeaseUrl
from imageport.hypervisors.vsphere.lease_stream import checksums_of
from tests.hypervisors.tls_server import Authority
from tests.hypervisors.vsphere_answers import FROZEN, SCSI, Session, disk

SHA1 = ":".join(["AB"] * 20)


class Lease:
    """Counts how it is ended."""

    def __init__(self) -> None:
        self.completed = 0
        self.aborted = 0
        self.entries: list[Any] = []

    def Complete(self) -> None:  # noqa: N802 - pyVmomi's name
        self.completed += 1

    def Abort(self) -> None:  # noqa: N802 - same
        self.aborted += 1

    def Progress(self, _percent: int) -> None:  # noqa: N802 - same
        """Take it."""

    def GetManifest(self) -> list[Any]:  # noqa: N802 - same
        return self.entries


def device_url(url: str = "https://*/nfc/ticket/disk-0.vmdk", **more: Any) -> Any:
    given = {"key": "/vm-1/ParaVirtualSCSIController0:0", "disk": True, "sslThumbprint": SHA1}
    return vim.HttpNfcLease.DeviceUrl(url=url, **{**given, **more})


def make_lease(*urls: Any, timeout: int = 300) -> tuple[ExportLease, Lease]:
    lease = Lease()
    info = vim.HttpNfcLease.Info(deviceUrl=list(urls), leaseTimeout=timeout)
    facts = {"state": vim.HttpNfcLease.State.ready, "info": info}
    session: Any = Session(facts, SimpleNamespace(ExportSnapshot=lambda: lease))
    return ExportLease(session, FROZEN), lease


def url_of(*urls: Any) -> LeaseUrl:
    lease, counted = make_lease(*urls)
    try:
        return lease.url(disk(2000, 1000, 0), [SCSI, disk(2000, 1000, 0)])
    finally:
        lease.abort()
        assert counted.aborted == 1


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://*/nfc/t/disk-0.vmdk", "vc.example", 443),
        ("https://*:8443/nfc/t/disk-0.vmdk", "vc.example", 8443),
        ("https://esx1.example/nfc/t/disk-0.vmdk", "esx1.example", 443),
        ("https://[2001:db8::1]:444/nfc/t/disk-0.vmdk", "2001:db8::1", 444),
    ],
)
def test_the_host_of_a_lease_is_where_it_says(url: str, host: str, port: int):
    found = url_of(device_url(url))
    assert (found.host, found.port, found.target) == (host, port, "/nfc/t/disk-0.vmdk")
    assert found.trust.thumbprint == SHA1.replace(":", "")


def test_where_a_disk_is_sent_from_is_not_shown():
    assert "ticket" not in repr(url_of(device_url()))


@pytest.mark.parametrize(
    "url", ["http://esx1/nfc/x", "ftp://*/x", "https://h:99999/x", "", "https://h"]
)
def test_an_address_that_is_not_https_is_refused_without_showing_it(url: str):
    with pytest.raises(HypervisorRefused, match="gives no https address") as caught:
        url_of(device_url(url))
    assert "nfc" not in str(caught.value)


def test_the_disk_is_found_among_several_by_its_controller_bus_and_unit():
    others = [
        device_url(key="/vm-1/nvram", disk=False),
        device_url("https://*/nfc/t/disk-1.vmdk", key="/vm-1/VirtualLsiLogicController0:0"),
        device_url("https://*/nfc/t/disk-2.vmdk", key="/vm-1/ParaVirtualSCSIController0:1"),
        device_url("https://*/nfc/t/disk-3.vmdk", key="/vm-1/ParaVirtualSCSIController1:0"),
    ]
    assert url_of(*others, device_url()).target == "/nfc/ticket/disk-0.vmdk"
    with pytest.raises(HypervisorRefused, match=r"none is surely this one .*Controller0:0"):
        url_of(*others)
    with pytest.raises(HypervisorRefused, match="none is surely this one"):
        url_of(device_url(), device_url(), *others)


def test_the_only_disk_of_a_lease_is_taken_where_the_machine_has_one_disk():
    boot, data = disk(2000, 1000, 0), disk(2001, 1000, 1)
    lease, _ = make_lease(device_url(key="/vm-1/as nobody knows"))
    assert lease.url(boot, [SCSI, boot]).target == "/nfc/ticket/disk-0.vmdk"
    with pytest.raises(HypervisorRefused, match="none is surely this one"):
        lease.url(boot, [SCSI, boot, data])
    lease.abort()
    lease, _ = make_lease(device_url(key="/vm-1/ParaVirtualSCSIController0:1"))
    assert lease.url(data, [SCSI, boot, data]).target == "/nfc/ticket/disk-0.vmdk"
    with pytest.raises(HypervisorRefused, match="none is surely this one"):
        lease.url(boot, [SCSI, boot, data])
    lease.abort()


def test_a_host_without_a_thumbprint_is_trusted_as_its_vcenter_or_by_authorities():
    assert url_of(device_url(sslThumbprint="")).trust.thumbprint == "1" * 64
    other = url_of(device_url("https://esx1/nfc/t/disk-0.vmdk", sslThumbprint=""))
    assert other.trust.thumbprint == ""
    assert other.trust.context.verify_mode == ssl.CERT_REQUIRED
    with pytest.raises(CertificateRefused, match="gives as the host's certificate is none"):
        url_of(device_url(sslThumbprint="made up"))


def test_a_whole_certificate_is_pinned_by_its_sha256(tmp_path: Path):
    certificate = Authority(tmp_path).certificate("esx1")
    pem = certificate.file.read_text().split("-----BEGIN PRIVATE", 1)[0]
    url = device_url()
    url.sslCertificate = pem
    assert url_of(url).trust.thumbprint == certificate.thumbprint.replace(":", "")


def test_a_lease_is_ended_once_by_whoever_comes_first():
    lease, counted = make_lease(device_url())
    threads = [threading.Thread(target=end) for end in (lease.abort, lease.complete) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert counted.completed + counted.aborted == 1


def test_a_lease_that_cannot_be_completed_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch):
    def refuse(lease: Lease) -> None:
        lease.completed += 1
        raise vim.fault.InvalidState

    monkeypatch.setattr(Lease, "Complete", refuse)
    lease, counted = make_lease(device_url())
    lease.complete()
    lease.abort()
    assert (counted.completed, counted.aborted) == (1, 0)


def test_a_lease_that_fails_to_get_ready_is_given_up(monkeypatch: pytest.MonkeyPatch):
    lease = Lease()
    made = SimpleNamespace(ExportSnapshot=lambda: lease)
    fault = vim.fault.InvalidState(msg="The operation is not allowed in the current state.")
    for facts, kind in (
        ({"state": vim.HttpNfcLease.State.error, "error": fault}, HypervisorRefused),
        ({"state": vim.HttpNfcLease.State.initializing}, HypervisorUnreachable),
        ({}, HypervisorUnreachable),
        ({"state": vim.HttpNfcLease.State.done}, ExportInterrupted),
    ):
        monkeypatch.setattr(lease_module, "_READY_SECONDS", 0.0)
        session: Any = Session(facts, made)
        before = lease.aborted
        with pytest.raises(kind):
            ExportLease(session, FROZEN)
        assert lease.aborted == before + 1


def test_the_manifest_entry_is_that_of_the_disk_or_none():
    entry = vim.HttpNfcLease.ManifestEntry
    lease, counted = make_lease(device_url(), device_url(key="/vm-1/nvram", disk=False))
    where = lease.url(disk(2000, 1000, 0), [SCSI])
    counted.entries = [entry(key="/vm-1/nvram", size=1), entry(key="other", disk=True, size=2)]
    assert lease.manifest(where).size == 2  # the only disk there is
    counted.entries.append(entry(key=where.key, disk=True, size=3))
    assert lease.manifest(where).size == 3
    counted.entries = []
    assert lease.manifest(where) is None
    lease.abort()


MANIFESTS: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"sha1": "AB"}, {"sha1": "ab"}),
    ({"sha1": "AB", "checksumType": "sha1"}, {"sha1": "ab"}),
    ({"checksumType": "SHA-256", "checksum": "CD"}, {"sha256": "cd"}),
    ({"sha1": "ab", "checksumType": "sha256", "checksum": "cd"}, {"sha1": "ab", "sha256": "cd"}),
    ({"checksum": "cd"}, {}),
    ({}, {}),
]


@pytest.mark.parametrize(("said", "known"), MANIFESTS)
def test_every_checksum_of_a_manifest_is_known_by_its_name(
    said: dict[str, str], known: dict[str, str]
):
    assert checksums_of(vim.HttpNfcLease.ManifestEntry(key="k", **said)) == known
