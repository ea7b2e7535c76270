"""Every probe of a real account: what is assumed, and why it cannot be tried on this machine.

The id is that of the row in ``docs/unverified.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Probe:
    """One assumption about a cloud."""

    id: str
    assumption: str
    why_not_here: str


EMULATED = "the emulator answers as we read the documentation"
HARDWARE = "needs the cloud's own machines"
IAM = "needs a real identity"

PROBES = (
    Probe(
        "aws-changed-blocks",
        "`ChangedBlocksCount` counts distinct blocks, not requests",
        EMULATED,
    ),
    Probe(
        "aws-unwritten-block",
        "A snapshot block that was never written reads as zero in an unencrypted volume and as "
        "anything in an encrypted one",
        EMULATED,
    ),
    Probe("aws-put-limit", "1000 block writes per second and snapshot", "needs the real service"),
    Probe(
        "aws-default-encryption",
        "An account that encrypts by default gives an encrypted snapshot although its parent is "
        "not",
        EMULATED,
    ),
    Probe(
        "aws-start-snapshot-tags",
        "`StartSnapshot` with tags passes a policy that knows `aws:RequestTag` and shuts out "
        "`ec2:CreateAction` `CreateTags`",
        IAM,
    ),
    Probe(
        "aws-stub-root",
        "A machine whose root is an empty disk reaches `running`, can be force-stopped and get "
        "another root; `RegisterImage` takes an empty snapshot with UEFI and NitroTPM",
        HARDWARE,
    ),
    Probe(
        "aws-device-link",
        "The engine's machine shows its disk as `nvme-Amazon_Elastic_Block_Store_vol…` below "
        "`/dev/disk/by-id`, and its job comes and goes through signed URLs",
        HARDWARE,
    ),
    Probe("aws-windows-console", "`GetConsoleOutput` of Windows shows COM1", HARDWARE),
    Probe(
        "aws-isolated-resolver",
        "A deny-all group leaves the resolver (169.254.169.253) and time (169.254.169.123) "
        "reachable",
        HARDWARE,
    ),
    Probe(
        "aws-error-codes",
        "Detaching a running root, starting without a root and the client token of a deleted "
        "snapshot answer with the codes that the emulator gives",
        EMULATED,
    ),
    Probe(
        "aws-dry-run-denial",
        "A dry run on an id that does not exist answers `UnauthorizedOperation` before it looks "
        "for the id",
        IAM,
    ),
    Probe(
        "aws-policy",
        "`docs/policies/aws-policy.json` is enough for permission test, place, upload, first boot, "
        "snapshot and sweep",
        IAM,
    ),
    Probe(
        "aws-missing-key",
        "`GetObject` of a missing key answers 404 to who may list with `StringLikeIfExists` on "
        "`s3:prefix`",
        IAM,
    ),
    Probe("aws-list-prices", "The prices of `imageport.clouds.aws.prices`", "needs the network"),
    Probe(
        "azure-checksums",
        "Put Page on an `md-impexp-` endpoint compares Content-MD5 (and CRC64)",
        EMULATED,
    ),
    Probe(
        "azure-write-url-reads",
        "The URL granted for writing also allows Get Blob and Get Page Ranges",
        EMULATED,
    ),
    Probe("azure-longest-access", "Access is granted for 60 days at most", EMULATED),
    Probe(
        "azure-delete-while-uploading",
        "A disk in ActiveUpload cannot be deleted before access is revoked",
        EMULATED,
    ),
    Probe(
        "azure-bad-footer",
        "Revoking access to a disk without a valid footer fails and names the cookie",
        EMULATED,
    ),
    Probe(
        "azure-plain-upload-boots",
        "A disk by createOption Upload without Trusted Launch boots as Generation 2, also on a "
        "size with NVMe only (v6)",
        HARDWARE,
    ),
    Probe(
        "azure-guest-shutdown",
        "A shutdown from inside shows as `PowerState/stopped`, and nothing else does",
        HARDWARE,
    ),
    Probe(
        "azure-inline-interface",
        "A machine makes its own network interface by `networkInterfaceConfigurations`, and it "
        "goes with the machine",
        HARDWARE,
    ),
    Probe(
        "azure-copy-from-snapshot",
        "Put Page From URL takes the signed URL of a snapshot as source",
        EMULATED,
    ),
    Probe(
        "azure-snapshot-completion",
        "An incremental snapshot is usable when completionPercent reaches 100",
        EMULATED,
    ),
    Probe(
        "azure-two-grants",
        "A snapshot is ActiveSAS while a URL is out, a second grant is refused or gives the same "
        "URL, and one revoke ends all of them",
        EMULATED,
    ),
    Probe(
        "azure-service-tags",
        "A network security group takes deny rules for AzurePlatformDNS, AzurePlatformIMDS and "
        "AzurePlatformLKM",
        EMULATED,
    ),
    Probe(
        "azure-permissions-list",
        "Permissions - List answers for the resource group without any extra right",
        IAM,
    ),
    Probe(
        "azure-engine-machine",
        "Debian 12 runs a Python script given as custom data, shows LUN 0 below "
        "`/dev/disk/azure`, and its job comes and goes through user delegation URLs",
        HARDWARE,
    ),
    Probe("azure-upload-rate", "An upload to an S4 disk runs at 60 MiB/s", "needs the service"),
    Probe(
        "azure-role",
        "The roles in `docs/policies` are enough for permission test, place, upload and sweep",
        IAM,
    ),
    Probe(
        "gcp-create-only-token",
        "A token restricted to creating below one prefix reads, replaces and deletes nothing; who "
        "asks with it that nothing be there is told 403 or 412",
        IAM,
    ),
    Probe(
        "gcp-join-refusals",
        "A join is refused with 404 when a part is gone, with 412 when one was replaced or the "
        "whole must not be there",
        EMULATED,
    ),
    Probe(
        "gcp-joined-archive",
        "`images.insert` takes an archive joined of pieces with full flushes, with a sparse map of "
        "20,000 ranges",
        EMULATED,
    ),
    Probe(
        "gcp-repeated-part",
        "A join takes one object at several places, and 20,000 components come together",
        EMULATED,
    ),
    Probe(
        "gcp-upload-session",
        "A resumable session skips bytes that it has, refuses a gap, and tells how far it is",
        EMULATED,
    ),
    Probe(
        "gcp-guest-shutdown",
        "A disk made from an uploaded image boots by UEFI, writes to serial port 1, and its own "
        "shutdown shows as `TERMINATED` without any operation that stops it",
        HARDWARE,
    ),
    Probe(
        "gcp-swapped-boot-disk",
        "A machine starts from an empty disk, can be stopped, and gets another boot disk then",
        HARDWARE,
    ),
    Probe(
        "gcp-stop-operation",
        "Operations are found by `targetId`, and a stop from outside is one of type `stop`",
        EMULATED,
    ),
    Probe(
        "gcp-roles",
        "The roles in `docs/policies` are enough for permission test, place, upload and sweep, and "
        "the self-test needs no right of its own",
        IAM,
    ),
    Probe(
        "gcp-machine-series",
        "Regions name the quotas that the product looks for, and zones the architecture of machine "
        "types",
        EMULATED,
    ),
)


def probes(*ids: str) -> Callable[[Function], Function]:
    """Mark a test as the probe of these rows."""

    def mark(function: Function) -> Function:
        function.probe_ids = ids  # type: ignore[attr-defined]
        return function

    return mark
