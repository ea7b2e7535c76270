# References: google-cloud-compute 1.x (REST transport); google-auth, "AuthorizedSession".
"""The clients of one credential, all at the endpoints of the settings and over one session.

Nothing here tries again: what reads is repeated by its caller (`imageport.clouds.waiting`), what
writes blocks by the pipeline, and what makes resources by name may be asked for twice.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import requests
from google.api_core import exceptions
from google.api_core.gapic_v1.client_info import ClientInfo
from google.auth.credentials import Credentials
from google.auth.transport.requests import AuthorizedSession
from requests.adapters import HTTPAdapter

from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.token_request import TokenRequest, readable_answers
from imageport.clouds.secret_urls import hide_bodies_in_log, hide_queries_in_logs
from imageport.errors import InputError

if TYPE_CHECKING:
    from google.cloud import compute_v1
    from google.cloud.storage import Client as StorageClient  # type: ignore[import-untyped]

MAX_CONNECTIONS: Final = 96
"""More than the most blocks in flight; a smaller pool drops and reopens TLS connections."""
CONNECT_SECONDS: Final = 40.0
"""urllib3 gives the sending of a whole body the time-out of connecting; among 64 puts of 512 KiB
on a link of 1 MiB/s one takes 32 s."""
READ_SECONDS: Final = 60.0
USER_AGENT: Final = "imageport"
TIMEOUT: Final = (CONNECT_SECONDS, READ_SECONDS)
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
LABORATORY_POLL_SECONDS: Final = 0.03
LONGEST_POLL_SECONDS: Final = 5.0

Client = TypeVar("Client")


class GcpClients:
    """Clients are made when first used; all may be shared between threads."""

    def __init__(self, settings: GcpSettings, credentials: Credentials) -> None:
        self.credentials = credentials
        self._settings = settings
        self._compute: dict[type[Any], Any] = {}
        self._lock = threading.Lock()
        # Not when first used: threads that are first together would each make one.
        self.token_request: Final = TokenRequest(settings)
        """How credentials reach token services: by the proxy and authority of the block."""
        self.session: Final[AuthorizedSession] = _OneRefreshSession(credentials, self.token_request)
        """The one session with the credentials' tokens, without any retries."""
        _pooled(self.session)
        self.session.hooks["response"].append(in_googles_shape)
        hide_queries_in_logs()
        # Its debug log tells URLs of upload sessions, and what is sent through the session.
        hide_bodies_in_log(logging.getLogger(AuthorizedSession.__module__))

    @property
    def poll_seconds(self) -> float:
        """Return the longest pause between two questions about a running operation."""
        return LABORATORY_POLL_SECONDS if self._settings.endpoint_url else LONGEST_POLL_SECONDS

    @cached_property
    def storage(self) -> StorageClient:
        """Return Google's client of the object store; pass ``retry=None`` to whatever is called."""
        # Not at the top: importing it costs a third of a second.
        from google.api_core.client_options import ClientOptions  # noqa: PLC0415
        from google.cloud.storage import Client as StorageClient  # noqa: PLC0415

        return StorageClient(
            project=self._settings.project,
            credentials=self.credentials,
            _http=self.session,
            client_options=ClientOptions(api_endpoint=self._settings.endpoint("storage")),
        )

    def compute(self, kind: type[Client]) -> Client:
        """Return the compute client of a class, ``compute_v1.ImagesClient``.

        Its methods ask once: Google's default repeats a reading for ten minutes.
        """
        with self._lock:
            if kind not in self._compute:
                self._compute[kind] = _AskingOnce(self._make(kind))
            return cast("Client", self._compute[kind])

    @cached_property
    def images(self) -> compute_v1.ImagesClient:
        """Return the control path to images."""
        client: compute_v1.ImagesClient = self.compute(_compute().ImagesClient)
        return client

    @cached_property
    def disks(self) -> compute_v1.DisksClient:
        """Return the control path to disks."""
        client: compute_v1.DisksClient = self.compute(_compute().DisksClient)
        return client

    @cached_property
    def instances(self) -> compute_v1.InstancesClient:
        """Return the control path to machines."""
        client: compute_v1.InstancesClient = self.compute(_compute().InstancesClient)
        return client

    @cached_property
    def firewalls(self) -> compute_v1.FirewallsClient:
        """Return the control path to firewall rules."""
        client: compute_v1.FirewallsClient = self.compute(_compute().FirewallsClient)
        return client

    @cached_property
    def subnetworks(self) -> compute_v1.SubnetworksClient:
        """Return the control path to subnets."""
        client: compute_v1.SubnetworksClient = self.compute(_compute().SubnetworksClient)
        return client

    @cached_property
    def regions(self) -> compute_v1.RegionsClient:
        """Return the control path to regions: their zones and quotas."""
        client: compute_v1.RegionsClient = self.compute(_compute().RegionsClient)
        return client

    @cached_property
    def global_operations(self) -> compute_v1.GlobalOperationsClient:
        """Return the control path to operations on images, firewall rules and projects."""
        client: compute_v1.GlobalOperationsClient = self.compute(_compute().GlobalOperationsClient)
        return client

    @cached_property
    def zone_operations(self) -> compute_v1.ZoneOperationsClient:
        """Return the control path to operations on disks and machines."""
        client: compute_v1.ZoneOperationsClient = self.compute(_compute().ZoneOperationsClient)
        return client

    @cached_property
    def region_operations(self) -> compute_v1.RegionOperationsClient:
        """Return the control path to operations on what a region has."""
        client: compute_v1.RegionOperationsClient = self.compute(_compute().RegionOperationsClient)
        return client

    def ask(
        self,
        service: str,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Ask an API that has no client here, and return its JSON; for use inside `asked`.

        Args:
            service: First part of the API's host name: ``cloudresourcemanager``.
            method: ``GET``, ``POST`` …
            path: From the host on, with a slash.
            body: What to send, as JSON.
            params: The query.
        """
        session: Any = self.session
        answer = session.request(
            method, f"{self._settings.endpoint(service)}{path}", json=body, params=params,
            timeout=TIMEOUT,
        )  # fmt: skip
        return answer_of(answer)

    def close(self) -> None:
        """Close all connections; may be called twice."""
        self.session.close()
        self.token_request.session.close()

    def _make(self, kind: type[Any]) -> Any:
        transport = kind.get_transport_class("rest")(
            host=self._settings.endpoint("compute"),
            credentials=self.credentials,
            # A token from the block's own token service; a self-signed one names a public host.
            always_use_jwt_access=False,
        )
        transport._session.close()  # noqa: SLF001 - no other way to give it proxy, CA and pool
        transport._session = self.session  # noqa: SLF001
        # Its methods are kept by the session that they were made for.
        transport._prep_wrapped_messages(ClientInfo(user_agent=USER_AGENT))  # noqa: SLF001
        name = kind.__module__.rsplit(".", maxsplit=1)[0] + ".transports.rest"
        hide_bodies_in_log(logging.getLogger(name))
        return kind(transport=transport)


def answer_of(answer: requests.Response) -> dict[str, Any]:
    """Return the JSON object of an answer.

    Raises:
        GoogleAPICallError: a status that is no success.
        requests.JSONDecodeError: it is no JSON, of a gateway on the way for instance.
    """
    if not answer.ok:
        raise exceptions.from_http_response(answer)
    found = answer.json() if answer.content else {}
    if not isinstance(found, dict):
        raise requests.JSONDecodeError("no object", answer.text[:20], 0)
    return found


def in_googles_shape(answer: requests.Response, **_: Any) -> None:
    """Wrap an error that a gateway tells in JSON of its own; for a session's hooks.

    Google's library takes every JSON for Google's, and fails at ``{"error": "no upstream"}``.
    """
    if answer.ok:
        return
    try:
        found = answer.json()
    except ValueError:
        return  # a page or a line, which it takes as such
    try:
        error = found["error"]
        lists = [*(error.get("errors") or []), *(error.get("details") or [])]
        if all(isinstance(item, dict) for item in lists):
            return
    except (KeyError, TypeError, AttributeError):
        pass
    answer._content = json.dumps({"error": {"message": answer.text}}).encode()  # noqa: SLF001


def _compute() -> Any:
    # Not at the top: importing it costs two seconds, which reading an image need not pay.
    from google.cloud import compute_v1  # noqa: PLC0415

    return compute_v1


class _OneRefreshSession(AuthorizedSession):
    """A session whose many threads ask for one new token, not for one each."""

    def __init__(self, credentials: Credentials, token_request: TokenRequest) -> None:
        super().__init__(credentials, auth_request=token_request)  # type: ignore[no-untyped-call]
        self._token_request = token_request
        self._refreshing = threading.Lock()

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> Any:
        """Send a request with a token that is good.

        Raises:
            InputError: it would show the token on the way.
        """
        if not (url.startswith("https://") or urlsplit(url).hostname in LOOPBACK):
            host = urlsplit(url).hostname
            raise InputError(
                f"Bad endpoint '{host}': found plain http, needed https or this machine."
            )
        if not self.credentials.valid:
            with self._refreshing:
                if not self.credentials.valid:
                    with readable_answers():
                        self.credentials.refresh(self._token_request)
        options |= self._token_request.network
        return super().request(method, url, *args, **options)  # type: ignore[no-untyped-call]


class _AskingOnce:
    """A client whose methods are called without Google's retries, and with our time-outs."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found) or name.startswith("_"):
            return found
        asking = functools.partial(found, retry=None, timeout=READ_SECONDS)
        setattr(self, name, asking)
        return asking


def _pooled(session: requests.Session) -> None:
    adapter = HTTPAdapter(pool_connections=8, pool_maxsize=MAX_CONNECTIONS, max_retries=0)
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
