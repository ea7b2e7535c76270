"""Signed URLs and restricted tokens: each opens what it is for, and nothing else."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.clients import GcpClients
from imageport.clouds.gcp.credentials import credentials_from_file, credentials_from_info
from imageport.clouds.gcp.downscoped_token import creating_token
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.signing import LONGEST_SECONDS, UrlSigner
from imageport.errors import InputError, PermissionMissing
from imageport.sandbox.gcp.account import BUCKET, KMS_KEY, SERVICE_ACCOUNT
from tests.clouds.gcp_laboratory import GcpLab
from tests.clouds.test_gcp_credentials import FEDERATION, USER

PUT = {"Content-Type": "application/octet-stream"}


def federated(lab: GcpLab, **changes: Any) -> GcpAccount:
    """Return an account whose credentials have no key of their own."""
    account = lab.account("run-1", **changes)
    credentials = credentials_from_file(lab.service.federation_file, account.settings)
    account.clients = GcpClients(account.settings, credentials)
    return account


@pytest.mark.parametrize("own_key", [True, False])
def test_a_signed_url_reads_or_writes_one_object_and_no_other(gcp_lab: GcpLab, own_key: bool):
    account = gcp_lab.account("run-1") if own_key else federated(gcp_lab)
    signer = UrlSigner(account)
    write = signer.url("t/re port+ü.json", "PUT", 60)
    assert requests.put(write, b"{}", headers=PUT, timeout=10).status_code == 200
    read = signer.url("t/re port+ü.json", "GET", 60)
    assert requests.get(read, timeout=10).content == b"{}"
    assert requests.get(write, timeout=10).status_code == 403
    assert requests.put(read, b"", headers=PUT, timeout=10).status_code == 403
    other = read.replace("re%20port", "other")
    assert other != read
    assert requests.get(other, timeout=10).status_code == 403


def test_a_signed_url_ends_with_its_job(gcp_lab: GcpLab):
    url = UrlSigner(gcp_lab.account("run-1")).url("t/a", "GET", 60)
    assert parse_qs(urlsplit(url).query)["X-Goog-Expires"] == ["960"]
    Objects(gcp_lab.account("run-1")).put("t/a", b"")
    gcp_lab.service.turn(clock_skew_seconds=-1000.0)
    assert requests.get(url, timeout=10).status_code in {400, 403}


def test_no_signed_url_is_asked_to_live_longer_than_google_lets_it(gcp_lab: GcpLab):
    url = UrlSigner(gcp_lab.account("run-1")).url("t/a", "GET", 10 * LONGEST_SECONDS)
    assert parse_qs(urlsplit(url).query)["X-Goog-Expires"] == [str(int(LONGEST_SECONDS))]


def test_an_encryption_key_is_part_of_what_was_signed(gcp_lab: GcpLab):
    header = {"x-goog-encryption-kms-key-name": KMS_KEY}
    url = UrlSigner(gcp_lab.account("run-1")).url("t/a", "PUT", 60, header)
    assert requests.put(url, b"", headers=PUT, timeout=10).status_code in {400, 403}
    assert requests.put(url, b"", headers=PUT | header, timeout=10).status_code == 200
    facts = Objects(gcp_lab.account("run-1")).stat("t/a")
    assert facts is not None
    assert facts.kms_key.startswith(KMS_KEY)


def test_credentials_without_a_key_ask_iam_and_name_what_they_lack(gcp_lab: GcpLab):
    gcp_lab.service.turn(denied=["iam.serviceAccounts.signBlob"])
    with pytest.raises(PermissionMissing, match=r"lack iam\.serviceAccounts\.signBlob"):
        UrlSigner(federated(gcp_lab)).url("t/a", "GET", 60)


def test_credentials_of_no_service_account_need_one_that_signs(gcp_lab: GcpLab):
    for document in (USER, FEDERATION):
        account = gcp_lab.account("run-1")
        credentials = credentials_from_info(document, account.settings)
        account.clients = GcpClients(account.settings, credentials)
        with pytest.raises(InputError, match="Bad signing_account: found none"):
            UrlSigner(account)
        account.clients.close()


def test_an_account_that_signs_may_be_named(gcp_lab: GcpLab):
    account = federated(gcp_lab, signing_account=SERVICE_ACCOUNT)
    url = UrlSigner(account).url("t/a", "GET", 60)
    assert SERVICE_ACCOUNT in parse_qs(urlsplit(url).query)["X-Goog-Credential"][0]
    account.clients.close()


def put_with(lab: GcpLab, token: str, key: str, **headers: str) -> int:
    url = f"{lab.service.endpoint}/{BUCKET}/{key}"
    sent = PUT | {"Authorization": f"Bearer {token}"} | headers
    return requests.put(url, b"data", headers=sent, timeout=10).status_code


def test_a_restricted_token_creates_in_one_folder_and_does_nothing_else(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    token = creating_token(account, "t/out/image/")
    assert token.seconds > 3000
    assert put_with(gcp_lab, token.value, "t/out/image/aa") == 200
    once = {"x-goog-if-generation-match": "0"}
    assert put_with(gcp_lab, token.value, "t/out/image/aa", **once) in {403, 412}
    assert put_with(gcp_lab, token.value, "t/out/image/aa") == 403
    assert put_with(gcp_lab, token.value, "t/out/other/aa") == 403
    bearer = {"Authorization": f"Bearer {token.value}"}
    url = f"{gcp_lab.service.endpoint}/{BUCKET}/t/out/image/aa"
    assert requests.get(url, headers=bearer, timeout=10).status_code == 403
    assert requests.delete(url, headers=bearer, timeout=10).status_code == 403
    assert token.value not in repr(token)


def test_a_restricted_token_is_new_each_time(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1")
    values = {creating_token(account, "t/").value for _ in range(2)}
    assert len(values) == 2


def test_federation_gets_restricted_tokens_too(gcp_lab: GcpLab):
    account = federated(gcp_lab)
    token = creating_token(account, "t/out/")
    assert put_with(gcp_lab, token.value, "t/out/aa") == 200
    account.clients.close()
