"""What Azure Resource Manager asks of every request, whoever answers it."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.sandbox.azure.account import GROUP_ID, LOCATION, RESOURCE_GROUP, SUBSCRIPTION

DISKS = f"{GROUP_ID}/providers/Microsoft.Compute/disks"
GROUPS = f"{GROUP_ID}/providers/Microsoft.Network/networkSecurityGroups"
COMPUTE_API = "2026-03-02"


def code_of(answer: Any):
    status, document, _ = answer
    return status, document["error"]["code"]


def test_a_request_without_a_token_is_refused_with_a_challenge(azure: Any):
    status, document, headers = azure.ask("GET", DISKS, token="", version=COMPUTE_API)
    assert (status, document["error"]["code"]) == (401, "AuthenticationFailed")
    assert headers["WWW-Authenticate"].startswith("Bearer ")


def test_another_token_is_refused(azure: Any):
    answer = azure.ask("GET", DISKS, token="other", version=COMPUTE_API)
    assert code_of(answer) == (401, "InvalidAuthenticationToken")


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("", "MissingApiVersionParameter"),
        ("latest", "InvalidApiVersionParameter"),
        ("2019-01-01", "NoRegisteredProviderFound"),
        ("2031-01-01", "NoRegisteredProviderFound"),
    ],
)
def test_a_version_that_the_provider_does_not_know_is_refused(azure: Any, version: str, code: str):
    assert code_of(azure.ask("GET", DISKS, version=version)) == (400, code)
    assert code_of(azure.ask("GET", GROUPS, version=version)) == (400, code)


def test_another_subscription_and_another_group_are_not_found(azure: Any):
    other = DISKS.replace(SUBSCRIPTION, "99999999-1111-2222-3333-444444444444")
    assert code_of(azure.ask("GET", other, version=COMPUTE_API)) == (404, "SubscriptionNotFound")
    other = DISKS.replace(RESOURCE_GROUP, "elsewhere")
    assert code_of(azure.ask("GET", other, version=COMPUTE_API)) == (404, "ResourceGroupNotFound")


def test_ids_ignore_case(azure: Any):
    name = azure.make_disk()
    status, document, _ = azure.ask("GET", f"{DISKS}/{name}".upper(), version=COMPUTE_API)
    assert status == 200
    assert document["name"] == name
    assert document["id"] == f"{DISKS}/{name}"


def test_a_type_that_does_not_exist_and_a_method_without_meaning_are_told_apart(azure: Any):
    unknown = azure.ask("GET", f"{GROUP_ID}/providers/Microsoft.Compute/galaxies/x")
    assert code_of(unknown) == (404, "InvalidResourceType")
    assert code_of(azure.ask("POST", f"{DISKS}/x", {})) == (405, "MethodNotAllowed")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"proprties": {}}, "'proprties' on object of type 'Disk'. Path 'proprties'"),
        ({"properties": {"osTyp": "Windows"}}, "'osTyp' on object of type 'Properties'"),
        (
            {"properties": {"creationData": {"createOptions": "Upload"}}},
            "'createOptions' on object of type 'CreationData'. Path 'properties.creationData.",
        ),
    ],
)
def test_members_that_the_service_does_not_know_are_refused(azure: Any, change: Any, named: str):
    body = {"location": LOCATION} | change
    status, document, _ = azure.ask("PUT", f"{DISKS}/unknown", body, version=COMPUTE_API)
    assert (status, document["error"]["code"]) == (400, "BadRequest")
    assert named in document["error"]["message"]


def test_a_body_that_is_no_object_is_refused(azure: Any):
    answer = azure.ask("PUT", f"{DISKS}/x", ["a"], version=COMPUTE_API)
    assert code_of(answer) == (400, "InvalidRequestContent")


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"a/b": "c"}, "InvalidTagNameCharacters"),
        ({"a": "b" * 257}, "TagValueTooLong"),
        ({str(number): "" for number in range(51)}, "InvalidTag"),
        ({"a": 1}, "InvalidRequestContent"),
    ],
)
def test_tags_that_resource_manager_does_not_take_are_refused(azure: Any, tags: Any, code: str):
    body = azure.disk_body() | {"tags": tags}
    assert code_of(azure.ask("PUT", f"{DISKS}/tags", body, version=COMPUTE_API)) == (400, code)


def test_another_region_is_refused(azure: Any):
    body = azure.disk_body() | {"location": "westeurope"}
    answer = azure.ask("PUT", f"{DISKS}/far", body, version=COMPUTE_API)
    assert code_of(answer) == (400, "LocationNotAvailableForResourceType")


def test_a_denied_action_is_refused_and_shows_in_the_permissions(azure: Any):
    name = azure.make_disk()
    azure.service.turn(denied=["microsoft.compute/disks/delete"])
    path = f"{DISKS}/{name}"
    status, document, _ = azure.ask("DELETE", path, version=COMPUTE_API)
    assert (status, document["error"]["code"]) == (403, "AuthorizationFailed")
    assert "'Microsoft.Compute/disks/delete' over scope '" + path in document["error"]["message"]
    for scope in (GROUP_ID, f"/subscriptions/{SUBSCRIPTION}", path):
        permissions = f"{scope}/providers/Microsoft.Authorization/permissions"
        _, found, _ = azure.ask("GET", permissions, version="2022-04-01")
        assert found["value"][0]["notActions"] == ["microsoft.compute/disks/delete"]
    assert azure.ask("GET", path, version=COMPUTE_API)[0] == 200


def test_a_denied_action_on_what_is_referred_to_is_told_apart(azure: Any, refused: Any):
    name = azure.disk()
    azure.service.turn(denied=["Microsoft.Compute/disks/beginGetAccess/action"])
    body = azure.snapshot_body(azure.disk_id(name))
    call = azure.compute.snapshots.begin_create_or_update
    code, message, status = refused(call, RESOURCE_GROUP, "denied", body)
    assert (code, status) == ("LinkedAuthorizationFailed", 403)
    assert "perform action(s) 'Microsoft.Compute/disks/beginGetAccess/action'" in message


def test_polling_needs_an_action_of_its_own(azure: Any, refused: Any):
    azure.service.turn(denied=["Microsoft.Compute/locations/DiskOperations/read"])
    call = azure.compute.disks.begin_create_or_update
    code, _, status = refused(call, RESOURCE_GROUP, "unwatched", azure.disk_body())
    assert (code, status) == ("AuthorizationFailed", 403)


def test_too_many_requests_are_answered_429_with_a_time_to_wait(azure: Any):
    azure.service.turn(control_rps=0.1)  # so few that a slow machine asks too often as well
    answers = [azure.ask("GET", DISKS, version=COMPUTE_API) for _ in range(2)]
    status, document, headers = answers[-1]
    assert status == 429
    # Microsoft.Compute hides it behind a code that otherwise is a refusal for good.
    assert document["error"]["code"] == "OperationNotAllowed"
    assert document["error"]["details"][0]["code"] == "TooManyRequests"
    assert int(headers["Retry-After"]) == 1
    assert code_of(azure.ask("GET", GROUPS)) == (429, "TooManyRequests")


def test_a_lost_answer_hides_a_change_that_was_made(azure: Any):
    azure.service.turn(lost_answers=1)
    path = f"{DISKS}/lost"
    answer = azure.ask("PUT", path, azure.disk_body(), version=COMPUTE_API)
    assert code_of(answer) == (500, "InternalServerError")
    assert azure.ask("GET", path, version=COMPUTE_API)[0] == 200
    again = azure.ask("PUT", path, azure.disk_body(), version=COMPUTE_API)
    assert again[0] == 202


def test_faults_strike_before_anything_happens(azure: Any):
    azure.service.turn(fault_rate=1.0)
    path = f"{DISKS}/faulty"
    assert azure.ask("PUT", path, azure.disk_body(), version=COMPUTE_API)[0] == 500
    azure.service.turn(fault_rate=0.0)
    assert azure.ask("GET", path, version=COMPUTE_API)[0] == 404


def test_an_operation_is_followed_in_both_ways(azure: Any):
    azure.service.turn(state_seconds=1.0)
    name = azure.make_disk()
    wanted = {"access": "Write", "durationInSeconds": 600}
    path = f"{DISKS}/{name}/beginGetAccess"
    status, document, headers = azure.ask("POST", path, wanted, version=COMPUTE_API)
    assert (status, document) == (202, None)
    poll = {"version": ""}
    status, document, _ = azure.ask("GET", headers["Azure-AsyncOperation"], **poll)
    assert (status, document["status"]) == (200, "InProgress")
    assert azure.ask("GET", headers["Location"], **poll)[0] == 202
    azure.until(lambda: azure.ask("GET", headers["Location"], **poll)[0] == 200)
    _, document, _ = azure.ask("GET", headers["Location"], **poll)
    url = document["accessSAS"]
    _, document, _ = azure.ask("GET", headers["Azure-AsyncOperation"], **poll)
    assert document["status"] == "Succeeded"
    assert document["properties"]["output"] == {"accessSAS": url}


def test_a_failed_operation_says_why(azure: Any, refused: Any):
    azure.service.turn(failed_operations=1)
    call = azure.compute.disks.begin_create_or_update
    code, _, _ = refused(call, RESOURCE_GROUP, "failing", azure.disk_body())
    assert code == "InternalExecutionError"
    shown = azure.compute.disks.get(RESOURCE_GROUP, "failing").as_dict()
    assert shown["properties"]["provisioningState"] == "Failed"
    azure.compute.disks.begin_delete(RESOURCE_GROUP, "failing").result()


def test_every_action_that_was_asked_for_is_on_record(azure: Any):
    azure.service.forget_calls()
    name = azure.make_disk()
    azure.compute.disks.begin_delete(RESOURCE_GROUP, name).result()
    assert azure.service.calls() == [
        "Microsoft.Compute/disks/delete",
        "Microsoft.Compute/disks/read",
        "Microsoft.Compute/disks/write",
        "Microsoft.Compute/locations/DiskOperations/read",
    ]


def test_the_resource_group_and_what_an_operator_made_are_there(azure: Any):
    assert azure.ask("GET", GROUP_ID, version="2022-09-01")[1]["location"] == LOCATION
    network = f"{GROUP_ID}/providers/Microsoft.Network/virtualNetworks/lab"
    assert azure.ask("GET", network)[1]["location"] == LOCATION
    assert azure.ask("GET", f"{network}/subnets/machines")[0] == 200
    assert code_of(azure.ask("GET", f"{network}/subnets/none")) == (404, "ResourceNotFound")
    image = f"{GROUP_ID}/providers/Microsoft.Compute/images/imageport-engine"
    assert (
        azure.ask("GET", image, version="2024-03-01")[1]["properties"]["hyperVGeneration"] == "V2"
    )
