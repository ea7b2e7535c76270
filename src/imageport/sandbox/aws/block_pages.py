# References: Amazon EBS direct APIs: ListSnapshotBlocks, ListChangedBlocks.
"""Pages of block lists and the tokens in them."""

from __future__ import annotations

import time
from typing import Any

from imageport.model import BLOCK_BYTES
from imageport.sandbox.aws.block_errors import Invalid
from imageport.sandbox.aws.block_tokens import (
    BLOCK_TOKEN_SECONDS,
    PAGE_TOKEN_SECONDS,
    make_token,
    read_token,
)
from imageport.sandbox.aws.emulator import Emulator
from imageport.sandbox.aws.stored_snapshot import StoredSnapshot

DEFAULT_RESULTS = 10000


def check_block_token(secret: bytes, token: str, snapshot_id: str, index: int) -> None:
    """Refuse a token that is bogus, ended, or another block's."""
    if read_token(secret, token) != f"{snapshot_id} {index}":
        raise Invalid("The block token is not valid.", "INVALID_BLOCK_TOKEN")


def snapshot_blocks(
    emulator: Emulator, snapshot: StoredSnapshot, query: dict[str, str]
) -> dict[str, Any]:
    """Return one page of everything that the snapshot and its parents hold."""
    page, following = _page(emulator, snapshot.facts.id, snapshot.indexes(), query)
    blocks = [
        {"BlockIndex": index, "BlockToken": _block_token(emulator, snapshot, index)}
        for index in page
    ]
    return _document("Blocks", blocks, snapshot, following)


def changed_blocks(
    emulator: Emulator,
    first: StoredSnapshot | None,
    second: StoredSnapshot,
    query: dict[str, str],
) -> dict[str, Any]:
    """Return one page of the blocks that differ between two snapshots of one lineage."""
    if first is not None and first.root() is not second.root():
        raise Invalid("The snapshots are not of one volume.", "UNRELATED_SNAPSHOTS")
    indexes = set(second.indexes()) | set(first.indexes() if first is not None else ())
    differing = [
        index
        for index in sorted(indexes)
        if first is None or first.digest(index) != second.digest(index)
    ]
    subject = f"{first.facts.id if first is not None else '-'}:{second.facts.id}"
    page, following = _page(emulator, subject, differing, query)
    blocks = []
    for index in page:
        block: dict[str, Any] = {"BlockIndex": index}
        if first is not None and first.digest(index) is not None:
            block["FirstBlockToken"] = _block_token(emulator, first, index)
        if second.digest(index) is not None:
            block["SecondBlockToken"] = _block_token(emulator, second, index)
        blocks.append(block)
    return _document("ChangedBlocks", blocks, second, following)


def _block_token(emulator: Emulator, snapshot: StoredSnapshot, index: int) -> str:
    subject = f"{snapshot.facts.id} {index}"
    return make_token(emulator.snapshots.secret, subject, BLOCK_TOKEN_SECONDS)


def _page(
    emulator: Emulator, subject: str, indexes: list[int], query: dict[str, str]
) -> tuple[list[int], str]:
    """Return the page that the query asks for and the token of the next, "" after the last."""
    results = _number(query, "maxResults", DEFAULT_RESULTS)
    if not 100 <= results <= DEFAULT_RESULTS:
        raise Invalid(f"MaxResults must be between 100 and {DEFAULT_RESULTS}.")
    secret = emulator.snapshots.secret
    empty = emulator.knobs.empty_pages
    if query.get("pageToken"):
        found = read_token(secret, query["pageToken"])
        listed, _, place = (found or "").rpartition(" ")
        if listed != subject:
            raise Invalid("The page token is not valid.", "INVALID_PAGE_TOKEN")
        start = int(place.rstrip("e"))
        empty = empty and not place.endswith("e")
    else:
        start = _number(query, "startingBlockIndex", 0)
    waiting = [index for index in indexes if index >= start]
    if empty and waiting:
        return [], make_token(secret, f"{subject} {waiting[0]}e", PAGE_TOKEN_SECONDS)
    page = waiting[:results]
    following = ""
    if len(waiting) > results:
        following = make_token(secret, f"{subject} {waiting[results]}", PAGE_TOKEN_SECONDS)
    return page, following


def _document(
    name: str, blocks: list[dict[str, Any]], snapshot: StoredSnapshot, following: str
) -> dict[str, Any]:
    document: dict[str, Any] = {
        name: blocks,
        "VolumeSize": snapshot.facts.size_gib,
        "BlockSize": BLOCK_BYTES,
        "ExpiryTime": time.time() + BLOCK_TOKEN_SECONDS,
    }
    if following:
        document["NextToken"] = following
    return document


def _number(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise Invalid(f"{name} must be a number.")
    return int(text)
