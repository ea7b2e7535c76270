"""The clients of one credential, each with the time-outs and retries that its use needs."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from azure.core import PipelineClient
from azure.core.credentials import TokenCredential
from azure.core.pipeline.policies import (
    ProxyPolicy,
    RequestIdPolicy,
    RetryPolicy,
    UserAgentPolicy,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.mgmt.compute import ComputeManagementClient
from azure.storage.blob import BlobServiceClient, ExponentialRetry
from requests.adapters import HTTPAdapter

from imageport.clouds.azure.arm_http import ArmHttp
from imageport.clouds.azure.credentials import LaboratoryTokenPolicy
from imageport.clouds.azure.settings import AzureSettings, is_loopback
from imageport.clouds.secret_urls import hide_queries_in_logs
from imageport.model import MIB

MAX_CONNECTIONS: Final = 96
"""More than the most blocks in flight; a smaller pool drops and reopens TLS connections."""
POLL_SECONDS: Final = 2.0
"""Between two questions about an operation; the SDK's 30 s would be most of a short one."""
LABORATORY_POLL_SECONDS: Final = 0.03
SEND_SECONDS: Final = 40.0
"""For 4 MiB: urllib3 gives the sending of a whole body the time-out of connecting, and among 32
puts on a link of 4 MiB/s one takes 32 s."""
STORAGE_SCOPE: Final = "https://storage.azure.com/.default"
USER_AGENT: Final = "imageport"

Client = TypeVar("Client")


class AzureClients:
    """Clients are made when first used; all may be shared between threads."""

    def __init__(self, settings: AzureSettings, credential: TokenCredential) -> None:
        self.credential = credential
        self._settings = settings
        self._made: list[Any] = []
        hide_queries_in_logs()

    @property
    def poll_seconds(self) -> float:
        """Return the pause between two questions about a running operation."""
        loopback = is_loopback(self._settings.resource_manager)
        return LABORATORY_POLL_SECONDS if loopback else POLL_SECONDS

    @cached_property
    def compute(self) -> ComputeManagementClient:
        """Return the control path to disks, snapshots and machines."""
        return self._kept(
            ComputeManagementClient(
                self.credential,
                self._settings.subscription_id,
                base_url=self._settings.resource_manager,
                credential_scopes=[self._settings.cloud.management_scope],
                polling_interval=self.poll_seconds,
                **self.control_options(),
            )
        )

    @cached_property
    def arm(self) -> ArmHttp:
        """Return the control path to everything else, by plain requests."""
        return self._kept(
            ArmHttp(
                self.credential,
                self._settings.resource_manager,
                self._settings.cloud.management_scope,
                self.control_options(),
                poll_seconds=self.poll_seconds,
            )
        )

    @cached_property
    def data(self) -> PipelineClient[Any, Any]:
        """Return the data path to disks: one attempt, because the pipeline above paces and retries.

        azure-storage-blob's own policy waits 15 s after the first refusal and so falls to a tenth
        of the disk's speed. No credential: signed URLs carry their own.
        """
        settings = self._settings
        session = requests.Session()
        adapter = HTTPAdapter(pool_connections=8, pool_maxsize=MAX_CONNECTIONS, max_retries=0)
        for scheme in ("https://", "http://"):
            session.mount(scheme, adapter)
        transport = RequestsTransport(
            session=session,
            connection_timeout=SEND_SECONDS,
            read_timeout=60,
            connection_verify=self._verify(),
        )
        policies = [
            RequestIdPolicy(),
            UserAgentPolicy(USER_AGENT),
            ProxyPolicy(proxies=_proxies(settings)),
        ]
        # The base URL is never used: every request has a signed URL of its own.
        base = settings.resource_manager
        client = PipelineClient[Any, Any](base, policies=policies, transport=transport)
        client.__enter__()
        return self._kept(client)

    @cached_property
    def blob_service(self) -> BlobServiceClient:
        """Return the path to the storage account of engine jobs."""
        self._settings.require("job_container_url")
        url = self._settings.job_container_url.rstrip("/").rsplit("/", maxsplit=1)[0]
        options = self.connection_options()
        options["connection_timeout"] = SEND_SECONDS
        options["max_single_put_size"] = options["max_block_size"] = 4 * MIB
        options["retry_policy"] = ExponentialRetry(
            initial_backoff=1, increment_base=2, retry_total=5
        )
        if urlsplit(url).scheme == "http":
            token = LaboratoryTokenPolicy(self.credential, STORAGE_SCOPE)
            options["_additional_pipeline_policies"] = [token]
            return self._kept(BlobServiceClient(url, **options))
        return self._kept(BlobServiceClient(url, credential=self.credential, **options))

    @property
    def job_container(self) -> str:
        """Return the name of the container of engine jobs."""
        return self._settings.job_container_url.rstrip("/").rsplit("/", maxsplit=1)[-1]

    def close(self) -> None:
        """Close all connections; may be called twice."""
        for client in self._made:
            client.close()

    def connection_options(self) -> dict[str, Any]:
        """Return what every client is made with: time-outs, proxy and certificate authority."""
        return {
            "connection_timeout": 5,
            "read_timeout": 60,
            "connection_verify": self._verify(),
            "proxies": _proxies(self._settings),
            "user_agent": USER_AGENT,
        }

    def control_options(self) -> dict[str, Any]:
        """Return the options of the control path: patient, and honouring Retry-After."""
        options = self.connection_options()
        options["retry_policy"] = RetryPolicy(
            retry_total=8,
            retry_status=8,
            retry_backoff_factor=0.4,
            retry_backoff_max=20,
            timeout=300,
        )
        if urlsplit(self._settings.resource_manager).scheme == "http":
            options["authentication_policy"] = LaboratoryTokenPolicy(
                self.credential, self._settings.cloud.management_scope
            )
        return options

    def _verify(self) -> str | bool:
        return self._settings.ca_bundle or True

    def _kept(self, client: Client) -> Client:
        self._made.append(client)
        return client


def _proxies(settings: AzureSettings) -> dict[str, str] | None:
    return {"http": settings.proxy, "https": settings.proxy} if settings.proxy else None
