"""Every way to sign in at Google Cloud makes its credentials, and none shows its secret."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from google.auth import (
    aws,
    compute_engine,
    external_account_authorized_user,
    identity_pool,
    impersonated_credentials,
)
from google.auth.exceptions import TransportError
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account

from imageport.clouds.gcp import credentials as module
from imageport.clouds.gcp.clients import GcpClients
from imageport.clouds.gcp.credentials import (
    FILE_VARIABLE,
    credentials_from_file,
    credentials_from_info,
    credentials_from_worker,
)
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.token_request import TokenRequest, is_metadata_server
from imageport.errors import CloudRefused, CloudUnavailable, InputError
from tests.clouds.gcp_laboratory import GcpLab

FEDERATION: dict[str, Any] = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "credential_source": {"file": "/run/token"},
}
BROKEN_KEY: dict[str, Any] = {
    "type": "service_account",
    "private_key": "5ecre7",
    "client_email": "a@b",
    "token_uri": "https://oauth2.googleapis.com/token",
}
USER: dict[str, Any] = {
    "type": "authorized_user",
    "client_id": "c",
    "client_secret": "5ecre7",
    "refresh_token": "5ecre7",
}

WORKFORCE: dict[str, Any] = {
    "type": "external_account_authorized_user",
    "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/x",
    "token_url": "https://sts.googleapis.com/v1/oauthtoken",
    "client_id": "c",
    "client_secret": "5ecre7",
    "refresh_token": "5ecre7",
}
IMPERSONATION: dict[str, Any] = {
    "type": "impersonated_service_account",
    "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/"
    "projects/-/serviceAccounts/a@b.iam.gserviceaccount.com:generateAccessToken",
    "source_credentials": USER,
}


def settings(**changes: Any) -> GcpSettings:
    known: dict[str, Any] = {
        "project": "some-project",
        "region": "europe-west3",
        "zone": "europe-west3-a",
        "bucket": "images",
    }
    return GcpSettings(**(known | changes))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A worker with nothing: no variable, no gcloud, no metadata server."""
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    monkeypatch.setattr(module, "METADATA_SECONDS", 0.5)
    return tmp_path


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "credentials.json"
    path.write_text(json.dumps(document))
    return path


def test_a_key_and_a_federation_open_the_bucket(gcp_lab: GcpLab):
    service = gcp_lab.service
    for path in (service.credentials_file, service.federation_file):
        credentials = credentials_from_file(path, gcp_lab.settings())
        clients = GcpClients(gcp_lab.settings(), credentials)
        account = gcp_lab.account("run-1")
        account.clients = clients
        Objects(account).put("t/a", b"x")
        assert Objects(account).get("t/a") == b"x"
        clients.close()


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        (FEDERATION, identity_pool.Credentials),
        (
            FEDERATION
            | {
                "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
                "credential_source": {
                    "environment_id": "aws1",
                    "regional_cred_verification_url": "https://sts.{region}.amazonaws.com",
                },
            },
            aws.Credentials,
        ),
        (USER, user_credentials.Credentials),
        (WORKFORCE, external_account_authorized_user.Credentials),
        (IMPERSONATION, impersonated_credentials.Credentials),
    ],
)
def test_each_kind_of_file_has_its_credentials(
    tmp_path: Path, document: dict[str, Any], kind: type
):
    assert isinstance(credentials_from_file(written(tmp_path, document), settings()), kind)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "found no JSON"),
        ("[]", "found type 'None'"),
        ('{"type": "gdch_service_account"}', "found type 'gdch_service_account'"),
        (
            json.dumps(BROKEN_KEY),
            "found an incomplete document, needed a whole service_account",
        ),
        ('{"type": "authorized_user", "refresh_token": "5ecre7"}', "incomplete"),
        (json.dumps(FEDERATION | {"token_url": "http://sts.example.com"}), "without https"),
        (json.dumps(IMPERSONATION | {"source_credentials": BROKEN_KEY}), "whole service_account"),
        (json.dumps(IMPERSONATION | {"source_credentials": {}}), "found type 'None'"),
        (
            json.dumps(IMPERSONATION | {"service_account_impersonation_url": "https://x/5ecre7"}),
            "whole impersonated_service_account",
        ),
    ],
)
def test_a_file_that_is_none_says_what_it_is_and_shows_nothing_of_it(
    tmp_path: Path, text: str, found: str
):
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(InputError, match=found) as caught:
        credentials_from_file(path, settings())
    assert "key.json" in caught.value.message
    assert "5ecre7" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.as_dict()}"


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"nothing\.json': found No such file"):
        credentials_from_file(tmp_path / "nothing.json", settings())


class Nobody:
    """A transport that reaches nothing, and remembers what was asked for."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    def __call__(self, url: str, **_: Any) -> Any:
        self.hosts.append(str(urlsplit(url).hostname))
        raise TransportError("no route")


@pytest.mark.parametrize(
    ("document", "service"),
    [
        (USER, "oauth2"),
        (WORKFORCE, "sts"),
        (IMPERSONATION, "oauth2"),
        (IMPERSONATION | {"source_credentials": WORKFORCE}, "sts"),
    ],
)
def test_token_services_are_asked_at_the_private_endpoint(document: dict[str, Any], service: str):
    nobody = Nobody()
    private = settings(private_service_connect="workers")
    credentials: Any = credentials_from_info(document, private)
    with pytest.raises(TransportError):
        credentials.refresh(nobody)
    assert set(nobody.hosts) == {f"{service}-workers.p.googleapis.com"}


def test_an_account_is_impersonated_at_the_private_endpoint(monkeypatch: pytest.MonkeyPatch):
    private = settings(private_service_connect="workers")
    credentials: Any = credentials_from_info(IMPERSONATION, private)
    monkeypatch.setattr(
        user_credentials.Credentials, "refresh", lambda self, _: setattr(self, "token", "5ecre7")
    )
    nobody = Nobody()
    with pytest.raises(TransportError):
        credentials.refresh(nobody)
    assert set(nobody.hosts) == {"iamcredentials-workers.p.googleapis.com"}
    assert credentials.service_account_email == "a@b.iam.gserviceaccount.com"


def test_federation_is_exchanged_at_the_private_endpoint():
    credentials: Any = credentials_from_info(
        FEDERATION, settings(private_service_connect="workers")
    )
    assert credentials._token_url == "https://sts-workers.p.googleapis.com/v1/token"


def test_the_worker_is_looked_at_in_googles_order(bare: Path, monkeypatch: pytest.MonkeyPatch):
    left = bare / "gcloud/application_default_credentials.json"
    left.parent.mkdir()
    left.write_text(json.dumps(USER))
    assert isinstance(credentials_from_worker(settings()), user_credentials.Credentials)
    monkeypatch.setenv(FILE_VARIABLE, str(written(bare, FEDERATION)))
    assert isinstance(credentials_from_worker(settings()), identity_pool.Credentials)


def test_a_worker_without_any_says_at_once_what_was_looked_for(bare: Path):
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        credentials_from_worker(settings())
    assert time.monotonic() - began < 3
    message = caught.value.message
    assert FILE_VARIABLE in message
    assert str(bare / "gcloud") in message
    assert "no metadata server at 127.0.0.1:9" in message


class Metadata(BaseHTTPRequestHandler):
    """A machine's own metadata server."""

    email = "worker@lab.iam.gserviceaccount.com"

    def do_GET(self) -> None:
        assert self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200 if self.email else 404)
        self.send_header("Content-Length", str(len(self.email)))
        self.end_headers()
        self.wfile.write(self.email.encode())

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("email", [Metadata.email, ""])
def test_an_attached_account_is_taken_if_there_is_one(monkeypatch: pytest.MonkeyPatch, email: str):
    monkeypatch.setattr(Metadata, "email", email)
    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
        try:
            if email:
                found = credentials_from_worker(settings())
                assert isinstance(found, compute_engine.Credentials)
            else:
                with pytest.raises(InputError, match="no service account attached"):
                    credentials_from_worker(settings())
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("variable", ["", "http_proxy", "all_proxy"])
def test_no_proxy_is_asked_for_what_the_machine_itself_is(
    monkeypatch: pytest.MonkeyPatch, variable: str
):
    nowhere = "http://127.0.0.1:9"
    if variable:
        monkeypatch.setenv(variable, nowhere)
    request = TokenRequest(settings(proxy="" if variable else nowhere))
    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
        url = f"http://127.0.0.1:{server.server_port}/computeMetadata/v1/"
        answer = request(url, headers={"Metadata-Flavor": "Google"}, timeout=5)
        thread.join()
    assert answer.data == Metadata.email.encode()
    monkeypatch.delenv("GCE_METADATA_HOST")
    with pytest.raises(TransportError):
        request("http://token.example.com/", timeout=5)
    request.session.close()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://169.254.169.254/metadata/identity/oauth2/token", True),
        ("http://metadata.google.internal/computeMetadata/v1/", True),
        ("http://[fd00:ec2::254]/latest/meta-data", True),
        ("https://sts.googleapis.com/v1/token", False),
        ("http://127.0.0.1:8080/token", False),
    ],
)
def test_the_metadata_servers_of_three_clouds_are_told_from_token_services(
    monkeypatch: pytest.MonkeyPatch, url: str, found: bool
):
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    assert is_metadata_server(url) is found


def test_a_token_that_ran_out_is_renewed_within_the_call(gcp_lab: GcpLab):
    gcp_lab.service.turn(token_seconds=1.0)
    credentials = credentials_from_file(gcp_lab.service.credentials_file, gcp_lab.settings())
    account = gcp_lab.account("run-1")
    account.clients = GcpClients(gcp_lab.settings(), credentials)
    Objects(account).put("t/a", b"x")
    time.sleep(1.1)
    # As one that lives on by the worker's clock: the answer alone says that it is over.
    credentials.expiry = None
    gcp_lab.service.turn(token_seconds=3600.0)
    assert Objects(account).get("t/a") == b"x"
    account.clients.close()


def test_many_threads_ask_for_one_new_token(gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch):
    credentials = credentials_from_file(gcp_lab.service.credentials_file, gcp_lab.settings())
    refreshed: list[float] = []
    refresh = type(credentials).refresh
    monkeypatch.setattr(
        type(credentials),
        "refresh",
        lambda self, request: (refreshed.append(time.monotonic()), refresh(self, request))[1],
    )
    account = gcp_lab.account("run-1")
    account.clients = GcpClients(gcp_lab.settings(), credentials)
    threads = [threading.Thread(target=lambda: Objects(account).stat("t/a")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refreshed) == 1
    account.clients.close()


class Gateway(BaseHTTPRequestHandler):
    """What answers in the place of a token service, each time the same."""

    answer = (200, "")

    def do_POST(self) -> None:
        status, body = self.answer
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def gateway() -> Iterator[str]:
    """The address of a gateway."""
    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((503, ""), CloudUnavailable),
        ((502, "<html>Bad Gateway</html>"), CloudUnavailable),
        ((429, '{"error": {"status": "RESOURCE_EXHAUSTED"}}'), CloudUnavailable),
        ((200, "<html>Sign in to the guest network</html>"), CloudUnavailable),
        ((200, "[]"), CloudUnavailable),
        ((400, '{"error": "invalid_grant", "error_description": "5ecre7"}'), CloudRefused),
    ],
)
def test_what_stands_in_for_a_token_service_is_told_from_one_that_refuses(
    gateway: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, kind: type
):
    monkeypatch.setattr(Gateway, "answer", answer)
    token = tmp_path / "token"
    token.write_text("subject")
    document = FEDERATION | {"token_url": gateway, "credential_source": {"file": str(token)}}
    clients = GcpClients(settings(), credentials_from_info(document, settings()))
    with pytest.raises(kind), asked("storage.objects.get", "t/a"):
        clients.ask("storage", "GET", "/nothing")
    clients.close()


def test_a_key_that_google_refuses_is_told_from_a_service_that_is_silent(gcp_lab: GcpLab):
    document = json.loads(gcp_lab.service.credentials_file.read_text())
    refused = {"client_email": "nobody@lab.iam.gserviceaccount.com"}
    silent = {"token_uri": "http://127.0.0.1:9/token"}
    for change, kind in ((refused, CloudRefused), (silent, CloudUnavailable)):
        credentials: Any = credentials_from_info(document | change, gcp_lab.settings())
        assert isinstance(credentials, service_account.Credentials)
        account = gcp_lab.account("run-1")
        account.clients = GcpClients(gcp_lab.settings(), credentials)
        with pytest.raises(kind) as caught:
            Objects(account).stat("t/a")
        assert "credentials of the worker" in caught.value.hint
        account.clients.close()
