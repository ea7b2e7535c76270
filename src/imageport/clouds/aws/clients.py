"""The boto3 clients of one session, each with the time-outs and retries that its use needs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from imageport.clouds.aws.settings import AwsSettings

if TYPE_CHECKING:
    from mypy_boto3_ebs.client import EBSClient
    from mypy_boto3_ec2.client import EC2Client
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_service_quotas.client import ServiceQuotasClient
    from mypy_boto3_sts.client import STSClient

MAX_CONNECTIONS = 96
"""More than the most blocks in flight; a smaller pool drops and reopens TLS connections."""


class AwsClients:
    """Clients are made when first used; boto3 clients may be shared between threads."""

    def __init__(self, session: boto3.Session, settings: AwsSettings) -> None:
        self.session = session
        self._settings = settings
        self._made: list[Any] = []

    @cached_property
    def ec2(self) -> EC2Client:
        """Return the control path to machines, volumes and snapshots."""
        client: EC2Client = self._client("ec2", self._control())
        return client

    @cached_property
    def ec2_once(self) -> EC2Client:
        """Return a client that asks once, for the one creation without an idempotency token."""
        once = Config(retries={"total_max_attempts": 1, "mode": "standard"})
        client: EC2Client = self._client("ec2", self._control().merge(once))
        return client

    @cached_property
    def ebs(self) -> EBSClient:
        """Return the control path of the EBS direct APIs (start, complete, list)."""
        client: EBSClient = self._client("ebs", self._control())
        return client

    @cached_property
    def blocks(self) -> EBSClient:
        """Return the data path: one attempt, because the pipeline above paces and retries.

        The SDK's default read time-out (60 s, retried 4 times) turns one lost packet into minutes;
        a healthy put of 512 KiB takes well under a second, 12 s allow for a 0.5 Mbit/s share.
        """
        config = Config(
            connect_timeout=5,
            read_timeout=12,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=MAX_CONNECTIONS,
            proxies=self._proxies(),
        )
        client: EBSClient = self._client("ebs", config)
        return client

    @cached_property
    def s3(self) -> S3Client:
        """Return the path to the bucket of engine jobs."""
        # Presigned URLs must be plain: the engine machine sends no checksum header.
        style: Any = "path" if self._settings.endpoint_url else "virtual"
        config = self._control().merge(
            Config(
                signature_version="s3v4",
                s3={"addressing_style": style},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            )
        )
        client: S3Client = self._client("s3", config)
        return client

    @cached_property
    def sts(self) -> STSClient:
        """Return the path to the identity of the credentials."""
        client: STSClient = self._client("sts", self._control())
        return client

    @cached_property
    def quotas(self) -> ServiceQuotasClient:
        """Return the path to the account's limits."""
        client: ServiceQuotasClient = self._client("service-quotas", self._control())
        return client

    @cached_property
    def kms(self) -> Any:
        """Return the path to what is known of an encryption key."""
        return self._client("kms", self._control())

    def close(self) -> None:
        """Close all connections; may be called twice."""
        for client in self._made:
            client.close()

    def _control(self) -> Config:
        return Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"total_max_attempts": 8, "mode": "standard"},
            proxies=self._proxies(),
        )

    def _proxies(self) -> dict[str, str] | None:
        proxy = self._settings.proxy
        return {"http": proxy, "https": proxy} if proxy else None

    def _client(self, service: str, config: Config) -> Any:
        make: Any = self.session.client
        client = make(
            service,
            region_name=self._settings.region,
            endpoint_url=self._settings.endpoint_url or None,
            verify=self._settings.ca_bundle or None,
            config=config,
        )
        self._made.append(client)
        return client
