"""Plain requests to Azure Resource Manager: by id, waited for, and to nobody else."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from imageport.clouds.azure.arm_http import COMPUTE_DISKS_API, NETWORK_API, ArmHttp
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.names import NETWORK_SECURITY_GROUPS, resource_id
from imageport.errors import (
    CloudError,
    CloudRefused,
    CloudThrottled,
    CloudUnavailable,
    PermissionMissing,
)
from imageport.sandbox.azure.account import LOCATION
from tests.clouds.azure_laboratory import AzureLab

KIND = NETWORK_SECURITY_GROUPS
WRITE, READ, DELETE = f"{KIND}/write", f"{KIND}/read", f"{KIND}/delete"
BODY: dict[str, Any] = {"location": LOCATION, "tags": {"a": "b"}, "properties": {}}


@pytest.fixture
def arm(azure_lab: AzureLab) -> ArmHttp:
    return azure_lab.clients.arm


@pytest.fixture
def group(azure_lab: AzureLab) -> str:
    return resource_id(azure_lab.settings(), KIND, "imageport-test")


def test_a_resource_is_made_waited_for_changed_listed_and_deleted(
    azure_lab: AzureLab, arm: ArmHttp, group: str
):
    assert arm.get(group, NETWORK_API, READ) is None
    azure_lab.service.turn(state_seconds=0.3)
    made = arm.put(group, BODY, NETWORK_API, WRITE)
    assert made["properties"]["provisioningState"] == "Succeeded"
    arm.patch(group, {"tags": {"a": "c"}}, NETWORK_API, WRITE)
    kept = arm.get(group, NETWORK_API, READ)
    assert kept is not None
    assert kept["tags"] == {"a": "c"}
    listed = arm.pages(group.rsplit("/", maxsplit=1)[0], NETWORK_API, READ)
    assert [item["name"] for item in listed] == ["imageport-test"]
    arm.delete(group, NETWORK_API, DELETE)
    assert arm.get(group, NETWORK_API, READ) is None
    arm.delete(group, NETWORK_API, DELETE)


def test_a_denial_names_the_action_and_the_resource(azure_lab: AzureLab, arm: ArmHttp, group: str):
    azure_lab.service.turn(denied=[WRITE])
    with pytest.raises(PermissionMissing, match="Cannot write network security group") as caught:
        arm.put(group, BODY, NETWORK_API, WRITE)
    assert caught.value.fields["action"] == WRITE


def test_an_operation_that_fails_says_why(azure_lab: AzureLab, arm: ArmHttp, group: str):
    azure_lab.service.turn(failed_operations=1, state_seconds=0.1)
    with pytest.raises(CloudError, match="InternalExecutionError"):
        arm.put(group, BODY, NETWORK_API, WRITE)


def test_a_body_that_is_wrong_is_refused(arm: ArmHttp, group: str):
    with pytest.raises(CloudRefused):
        arm.put(group, {**BODY, "sku": "x"}, NETWORK_API, WRITE)


@pytest.mark.slow
def test_a_list_of_many_pages_is_whole(azure_lab: AzureLab, arm: ArmHttp):
    path = f"{azure_lab.settings().group_id}/providers/Microsoft.Compute/disks"
    for number in range(52):
        body = {
            "location": LOCATION,
            "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 1},
        }
        arm.put(f"{path}/d{number}", body, COMPUTE_DISKS_API, "Microsoft.Compute/disks/write")
    found = list(arm.pages(path, COMPUTE_DISKS_API, "Microsoft.Compute/disks/read"))
    assert len({item["name"] for item in found}) == 52


def test_no_token_follows_a_link_to_another_host(arm: ArmHttp, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arm, "_base_url", "https://management.azure.com")
    for link in (
        "https://evil.example/next",
        "https://management.azure.com.evil.example/next",
        "https://management.azure.com@evil.example/next",
        "https://management.azure.com:444/next",
        "http://management.azure.com/next",
        "/next",
    ):
        with pytest.raises(CloudRefused, match="found another host"):
            arm._own(link)


def test_a_link_that_names_the_usual_port_is_followed(
    arm: ArmHttp, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(arm, "_base_url", "https://management.azure.com")
    for link in ("https://management.azure.com:443/next", "https://Management.Azure.com/next"):
        assert arm._own(link) == link


class Detour(BaseHTTPRequestHandler):
    """Somebody between the worker and Azure: redirects to another host, which answers a page."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        host, port = self.headers["Host"].split(":")
        self.seen.append((host, self.headers.get("Authorization", "")))
        away = host == "127.0.0.1"
        page = b"" if away else b"<html>"
        self.send_response(302 if away else 200)
        self.send_header("Location", f"http://localhost:{port}/elsewhere")
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def test_no_token_follows_a_redirection_and_a_page_is_no_answer(azure_lab: AzureLab):
    with HTTPServer(("127.0.0.1", 0), Detour) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        settings = azure_lab.settings(endpoint_url=f"http://127.0.0.1:{server.server_address[1]}")
        clients = AzureClients(settings, azure_lab.connections.credential)
        try:
            with pytest.raises(CloudUnavailable, match="found no JSON"):
                clients.arm.get("/subscriptions/1", NETWORK_API, READ)
        finally:
            clients.close()
            server.shutdown()
            thread.join(10)
    (first, token), (second, nothing) = Detour.seen
    assert (first, second) == ("127.0.0.1", "localhost")
    assert token.startswith("Bearer ")
    assert nothing == ""


def test_too_many_questions_are_asked_more_slowly(azure_lab: AzureLab, arm: ArmHttp, group: str):
    azure_lab.service.turn(control_rps=1.0)
    for _ in range(3):
        assert arm.get(group, NETWORK_API, READ) is None


def test_a_manager_that_is_away_is_unavailable(
    arm: ArmHttp, group: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(arm, "_base_url", "http://127.0.0.1:9")
    with pytest.raises((CloudUnavailable, CloudThrottled)):
        arm.get(group, NETWORK_API, READ)
