"""Where and how this product works in one AWS account; no secret is ever part of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from imageport.clouds.settings_checks import refuse_contradictions, require_set


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """One account, region and network; credentials come from the boto3 session alone.

    ``availability_zone`` is the zone of ``subnet_id``, from which the engine machine must reach S3
    (a gateway endpoint is enough). Empty security groups mean: make one for the run and delete it
    afterwards. ``encrypted`` without ``kms_key_id`` takes the account's
    default key.
    """

    region: str
    availability_zone: str = ""
    bucket: str = ""
    subnet_id: str = ""
    site: str = ""
    engine_image_id: str = ""
    """Empty takes the newest own image named ``imageport-engine*``, then plain Debian."""
    engine_instance_type: str = "m6i.large"
    boot_instance_type: str = "m6i.large"
    """The family that target devices will use: its network adapter is the one that is bound."""
    isolated_security_group_id: str = ""
    engine_security_group_id: str = ""
    kms_key_id: str = ""
    encrypted: bool = False
    unencrypted_for_ever: bool = False
    """Nobody will ever encrypt a copy: blocks that were never written then read as zeros and
    written zeros need not be sent."""
    endpoint_url: str = ""
    keep_parent: bool = True
    ca_bundle: str = ""
    proxy: str = field(default="", repr=False)
    """May hold a user and a password, so it is never shown."""
    boot_egress_cidrs: tuple[str, ...] = ()
    """Destinations that the one boot may reach; empty is none."""
    expires_seconds: float = 6 * 3600.0
    """How long a resource outlives the last sign of life of its run."""
    snapshot_deadline_seconds: float = 2 * 3600.0

    def __post_init__(self) -> None:
        """Refuse contradictions; what is missing shows when it is needed (`require`)."""
        problems = []
        if self.encrypted and self.unencrypted_for_ever:
            problems.append("encrypted and unencrypted_for_ever exclude each other")
        if self.kms_key_id and not self.encrypted:
            problems.append("kms_key_id needs encrypted=True")
        if not self.region:
            problems.append("region is missing")
        refuse_contradictions("AWS", problems)

    def require(self, *names: str) -> None:
        """Raise `InputError` naming every one of ``names`` that is empty."""
        require_set("AWS", self, names)
