# References: Azure Resource Manager, "Track asynchronous operations" (Azure-AsyncOperation).
"""Requests to Azure Resource Manager for which a whole client package is too much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.credentials import TokenCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.policies import (
    ContentDecodePolicy,
    HeadersPolicy,
    ProxyPolicy,
    RedirectPolicy,
    RequestIdPolicy,
    SensitiveHeaderCleanupPolicy,
    UserAgentPolicy,
)
from azure.core.rest import HttpRequest, HttpResponse
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.waiting import wait_for
from imageport.errors import CloudRefused, CloudUnavailable, ResourceGone

COMPUTE_API: Final = "2026-04-01"
COMPUTE_DISKS_API: Final = "2026-03-02"
"""What azure-mgmt-compute asks with: the same resource is never seen by two versions."""
NETWORK_API: Final = "2024-05-01"
RESOURCES_API: Final = "2022-09-01"
AUTHORIZATION_API: Final = "2022-04-01"
OPERATION_SECONDS: Final = 600.0
_ENDED = {"succeeded", "failed", "canceled"}


class ArmHttp:
    """GET, PUT, PATCH, DELETE and POST by id; may be used from several threads.

    Every method takes the id or path of the resource (``/subscriptions/…``), the API version, and
    the action of a role definition that the call needs, for errors. Answers are parsed JSON.
    """

    def __init__(
        self,
        credential: TokenCredential,
        base_url: str,
        scope: str,
        options: dict[str, Any],
        *,
        poll_seconds: float,
    ) -> None:
        self._base_url = base_url
        self._poll_seconds = poll_seconds
        self._client: ARMPipelineClient[HttpRequest, HttpResponse] = ARMPipelineClient(
            base_url,
            policies=[
                RequestIdPolicy(),
                HeadersPolicy(),
                UserAgentPolicy(options.get("user_agent")),
                ProxyPolicy(proxies=options.get("proxies")),
                ContentDecodePolicy(),
                RedirectPolicy(),
                options["retry_policy"],
                options.get("authentication_policy")
                or ARMChallengeAuthenticationPolicy(credential, scope),
                SensitiveHeaderCleanupPolicy(),  # no token goes where Azure was redirected to
            ],
            **options,
        )

    def get(self, path: str, api_version: str, action: str) -> dict[str, Any] | None:
        """Return the resource, or None when there is none."""
        try:
            return self._json("GET", path, api_version, action)
        except ResourceGone:
            return None

    def pages(self, path: str, api_version: str, action: str) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page by page."""
        answer = self._json("GET", path, api_version, action)
        while True:
            yield from answer.get("value", [])
            link = str(answer.get("nextLink") or "")
            if not link:
                return
            answer = self._json("GET", self._own(link), "", action)

    def put(
        self,
        path: str,
        body: dict[str, Any],
        api_version: str,
        action: str,
        *,
        pulse: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Create or replace the resource, wait for it and return it as it then is."""
        answer = self._send("PUT", path, api_version, action, body)
        self._wait(answer, action, path, pulse)
        return self._json("GET", path, api_version, action)

    def patch(self, path: str, body: dict[str, Any], api_version: str, action: str) -> None:
        """Change the resource; what takes longer is not waited for."""
        self._send("PATCH", path, api_version, action, body)

    def post(self, path: str, body: dict[str, Any], api_version: str, action: str) -> Any:
        """Ask the resource to do something that it does at once, and return the answer."""
        return _body(self._send("POST", path, api_version, action, body))

    def delete(
        self,
        path: str,
        api_version: str,
        action: str,
        *,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        """Delete the resource and wait until it is gone; one that is gone is no error."""
        try:
            answer = self._send("DELETE", path, api_version, action)
        except ResourceGone:
            return
        self._wait(answer, action, path, pulse)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _json(self, method: str, path: str, api_version: str, action: str) -> dict[str, Any]:
        found = _body(self._send(method, path, api_version, action))
        return found if isinstance(found, dict) else {}

    def _send(
        self, method: str, path: str, api_version: str, action: str, body: Any = None
    ) -> HttpResponse:
        url = path if path.startswith("http") else f"{self._base_url}{path}"
        query = {"api-version": api_version} if api_version else {}
        subject = path.split("?", maxsplit=1)[0]
        with asked(action, subject):
            response = self._client.send_request(HttpRequest(method, url, params=query, json=body))
            if response.status_code >= 400:
                raise HttpResponseError(response=response)
        return response

    def _wait(
        self, answer: HttpResponse, action: str, subject: str, pulse: Callable[[], None]
    ) -> None:
        """Wait for an asynchronous operation; an answer that names none is already the end."""
        operation = answer.headers.get("Azure-AsyncOperation", "")
        location = answer.headers.get("Location", "")
        if answer.status_code not in {201, 202} or not (operation or location):
            return
        link = self._own(operation or location)

        def check() -> dict[str, Any] | None:
            found = self._send("GET", link, "", action)
            if not operation:
                return None if found.status_code == 202 else {"status": "Succeeded"}
            state: dict[str, Any] = _body(found)
            return state if str(state.get("status", "")).lower() in _ENDED else None

        ended = wait_for(subject, check, OPERATION_SECONDS, pulse=pulse)
        if ended["status"].lower() != "succeeded":
            problem = ended.get("error") or {}
            code = str(problem.get("code", ended["status"]))
            kind = CloudUnavailable if code.startswith("Internal") else CloudRefused
            raise kind(
                f"Cannot finish '{subject.rsplit('/', maxsplit=1)[-1]}': {code}: "
                f"{str(problem.get('message', ''))[:300]}",
                azure_code=code,
                action=action,
            )

    def _own(self, link: str) -> str:
        """Return a link that Azure gave us; one to another host never gets our token."""
        if _origin(link) != _origin(self._base_url):
            raise CloudRefused(
                f"Bad link from '{self._base_url}': found another host, needed the same."
            )
        return link


def _origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port; some providers write the port that goes without saying."""
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", parts.port or usual


def _body(response: HttpResponse) -> Any:
    try:
        return response.json() if response.content else {}
    except ValueError as error:
        # Cut short, or the page of a proxy on the way: asked again it may be whole.
        raise CloudUnavailable(
            f"Bad answer from Azure Resource Manager: found no JSON ({error})."
        ) from None
