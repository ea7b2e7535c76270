"""Where images go in AWS."""

from __future__ import annotations

from typing import Self

import boto3
from prefect_aws import AwsCredentials  # type: ignore[import-untyped]
from pydantic import Field, HttpUrl, model_validator

from blocks._block import ImageportBlock
from imageport.cloud import Cloud
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.settings import AwsSettings
from imageport.doctor.grants import aws_grant
from imageport.state.ledger import Ledger


class AwsTarget(ImageportBlock):
    """An AWS account, region and network that images are brought to.

    Without credentials the worker's own chain finds them: instance role, environment, profile.

    Example:
        Load a saved target:
        ```python
        from blocks import AwsTarget

        target = AwsTarget.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "AWS Target (imageport)"
    _block_type_slug = "imageport-aws-target"
    _description = "Where images go in AWS: account, region, subnet, bucket and machine types."
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/d74b16fe84ce626345adf235a47008fea2869a60-225x225.png"
    )
    _documentation_url = HttpUrl(
        "https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html"
    )

    credentials: AwsCredentials | None = Field(
        default=None,
        title="AWS credentials",
        description="Credentials; leave empty to use the worker's instance role or profile.",
    )
    region: str = Field(
        pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="Region, for example eu-central-1."
    )
    availability_zone: str = Field(
        default="", description="Availability zone of the subnet, for example eu-central-1a."
    )
    subnet_id: str = Field(
        default="", description="Subnet for the two short-lived machines of a run."
    )
    bucket: str = Field(
        default="", description="S3 bucket for engine jobs and reports, in the same region."
    )
    engine_image_id: str = Field(
        default="",
        description="Machine image of the engine VM; empty takes the newest of ours.",
    )
    engine_instance_type: str = Field(
        default="m6i.large", description="Machine type that composes the image."
    )
    boot_instance_type: str = Field(
        default="m6i.large",
        description="Machine type of the one boot: the family that target devices will use.",
    )
    isolated_security_group_id: str = Field(
        default="",
        description="Security group of the one boot that lets nothing out; empty makes one.",
    )
    engine_security_group_id: str = Field(
        default="", description="Security group of the engine VM; empty makes one for the run."
    )
    encrypted: bool = Field(default=False, description="Encrypt snapshots and volumes.")
    kms_key_id: str = Field(
        default="", description="KMS key to encrypt with; empty is the account's default key."
    )
    unencrypted_for_ever: bool = Field(
        default=False,
        description="Promise that nobody will encrypt a copy; written zeros need not be sent then.",
    )
    boot_egress_cidrs: tuple[str, ...] = Field(
        default=(), description="Networks that the one boot may reach; none by default."
    )
    endpoint_url: str = Field(
        default="", description="Another endpoint for every service: VPC endpoint or laboratory."
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        self.settings("check")
        return self

    @property
    def place(self) -> str:
        """Return cloud and region as the catalogue writes them, without the site."""
        return f"aws/{self.region}"

    def settings(self, site: str, *, proxy: str = "", ca_bundle: str = "") -> AwsSettings:
        """Return the library's settings for one site; they hold no secret."""
        values = self.model_dump(exclude={"credentials"})
        known = {name: values[name] for name in type(self).model_fields if name in values}
        return AwsSettings(**known, site=site, proxy=proxy, ca_bundle=ca_bundle)

    def grant_at(self, action: str) -> str:
        """Return to whom and where a missing action has to be granted."""
        return aws_grant(action)

    def session(self) -> boto3.Session:
        """Return the session that signs requests; clients refresh what a role or profile gives."""
        if self.credentials is None:
            return boto3.Session(region_name=self.region)
        session: boto3.Session = self.credentials.get_boto3_session()
        return session

    def open_cloud(
        self, ledger: Ledger, run: str, *, site: str, proxy: str = "", ca_bundle: str = ""
    ) -> Cloud:
        """Return the cloud for one run; what it creates carries ``site`` and ``run`` as tags."""
        settings = self.settings(site, proxy=proxy, ca_bundle=ca_bundle)
        return AwsCloud(settings, self.session(), ledger, run)
