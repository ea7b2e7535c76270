# References: Amazon EBS direct APIs: PutSnapshotBlock, GetSnapshotBlock, ListSnapshotBlocks.
"""Single requests for single blocks: tried once, checked, and in our own errors."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imageport.clouds.aws.clients import AwsClients
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.waiting import retried
from imageport.errors import BadDisk, CloudRefused, CloudUnavailable
from imageport.model import BLOCK_BYTES

if TYPE_CHECKING:
    from mypy_boto3_ebs.type_defs import ListSnapshotBlocksResponseTypeDef

PAGE_BLOCKS = 2000
"""Tokens per page: a page covers 1 GiB of dense disk and takes AWS well under a second."""


@dataclass(frozen=True, slots=True)
class BlockPage:
    """Part of a snapshot's block list."""

    tokens: dict[int, str]
    """Block index → token, ascending; a token is good for 7 days."""
    next_token: str
    volume_gib: int


class BlockClient:
    """The data path; may be used from several threads."""

    def __init__(self, clients: AwsClients) -> None:
        self._client = clients.blocks

    def put(self, snapshot_id: str, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Write one block once; AWS compares ``digest`` with what arrived."""
        if len(data) != BLOCK_BYTES:
            # AWS's answer to a short body is also what a slow link gets, which is sent again.
            raise CloudRefused(
                f"Bad block '{snapshot_id}/{index}': found {len(data)} bytes, needed {BLOCK_BYTES}."
            )
        with asked("ebs:PutSnapshotBlock", f"{snapshot_id}/{index}"):
            self._client.put_snapshot_block(
                SnapshotId=snapshot_id,
                BlockIndex=index,
                BlockData=bytes(data),
                DataLength=BLOCK_BYTES,
                Checksum=base64.b64encode(digest).decode(),
                ChecksumAlgorithm="SHA256",
            )

    def get(self, snapshot_id: str, index: int, token: str) -> bytes:
        """Read one block once and check it against the checksum that came with it."""
        subject = f"{snapshot_id}/{index}"
        with asked("ebs:GetSnapshotBlock", subject):
            answer = self._client.get_snapshot_block(
                SnapshotId=snapshot_id, BlockIndex=index, BlockToken=token
            )
            with answer["BlockData"] as body:
                data = body.read()
        if len(data) != BLOCK_BYTES:
            raise BadDisk(f"Bad block '{subject}': found {len(data)} bytes, needed {BLOCK_BYTES}.")
        found = base64.b64encode(hashlib.sha256(data).digest()).decode()
        if found != answer["Checksum"]:
            # Damage on the way, not in the snapshot: AWS sends what it has verified.
            raise CloudUnavailable(
                f"Bad block '{subject}': found SHA-256 {found}, needed {answer['Checksum']}."
            )
        return data

    def page(self, snapshot_id: str, start: int, next_token: str = "") -> BlockPage:
        """Return one page of the block list; it may be empty and yet not the last."""
        more: dict[str, Any] = (
            {"NextToken": next_token} if next_token else {"StartingBlockIndex": start}
        )
        with asked("ebs:ListSnapshotBlocks", snapshot_id):
            answer: ListSnapshotBlocksResponseTypeDef = self._client.list_snapshot_blocks(
                SnapshotId=snapshot_id, MaxResults=PAGE_BLOCKS, **more
            )
        if answer["BlockSize"] != BLOCK_BYTES:
            raise BadDisk(
                f"Bad snapshot '{snapshot_id}': found blocks of {answer['BlockSize']} bytes, "
                f"needed {BLOCK_BYTES}."
            )
        tokens = {block["BlockIndex"]: block["BlockToken"] for block in answer.get("Blocks", [])}
        return BlockPage(tokens, answer.get("NextToken", ""), int(answer["VolumeSize"]))

    def pages(self, snapshot_id: str, start: int = 0) -> Iterator[BlockPage]:
        """Yield the block list from ``start``; a page that fails is asked for again."""
        next_token = ""
        while True:
            here = next_token
            page = retried(lambda here=here: self.page(snapshot_id, start, here))  # type: ignore[misc]
            yield page
            next_token = page.next_token
            if not next_token:
                return
