"""Receiving a disk that arrives once and in order: hashed, put, journaled as any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from imageport.errors import InputError
from imageport.formats.disk_stream import DiskStream
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import ZERO_DIGEST
from imageport.transfer.arrived_blocks import ArrivedBlocks, BaseBlocks
from imageport.transfer.block_groups import Block
from imageport.transfer.block_target import BlockTarget, TransferPlan
from imageport.transfer.known_blocks import KnownBlocks, check_known
from imageport.transfer.manifest import block_count
from imageport.transfer.needs import Need
from imageport.transfer.request import NO_DOUBT, TransferRequest, TransferResult
from imageport.transfer.running import Origin, RunningTransfer


def receive(
    stream: DiskStream,
    target: BlockTarget,
    request: TransferRequest,
    *,
    content_key: str,
    base: VirtualDisk | None = None,
) -> TransferResult:
    """Bring what ``stream`` sends to ``target``; what does not come is as in ``base``, or zeros.

    ``content_key`` names the content as `VirtualDisk.content_key` does. A later call with this
    journal and the same key receives all of it again, but puts only what the target does not hold
    or holds otherwise: the digests decide, so full and differential streams may take turns.

    ``request.known`` are digests of ``base``: its blocks are not hashed then, and not read where
    the target has them. ``request.doubt`` has no part in this. ``request.partitions`` only says
    what a sample must not miss; they are not looked for.

    `DiskStream.finish` is called when everything is put: nothing is committed that it refuses.
    What an ended call leaves is as in `transfer`. Never closes ``stream``, ``base`` or ``target``.

    Raises:
        BadDisk: The stream's pieces overlap, go back or lie outside of the disk.
        ExportInterrupted: It was cut; the journal keeps what was put.
        VerificationFailed: What came is not what was sent.
        InputError: ``base`` is larger than the disk: no disk shrinks.
    """
    size_bytes = stream.size_bytes
    origin = Origin(stream.location, size_bytes, content_key)
    if base is not None:
        origin = replace(origin, check_unchanged=base.check_unchanged)
    running = RunningTransfer(origin, target, replace(request, doubt=NO_DOUBT))
    with running.cleaned_up():
        _check_base(base, request, size_bytes)
        origin.check_unchanged()
        plan = TransferPlan(size_bytes, (), (), size_bytes)
        running.open(plan, block_count(size_bytes))
        bytes_read = _Receiving(stream, base, running).run()
        received = stream.finish()
        running.progress.note(received)
        result = running.seal(plan, bytes_read, request.partitions or ())
        return replace(result, received=received)


def _check_base(base: VirtualDisk | None, request: TransferRequest, size_bytes: int) -> None:
    if base is None:
        if request.known is not None:
            raise InputError("Bad known digests: found some without the base that they are of.")
        return
    check_known(request.known, base.size_bytes, base.location)
    if base.size_bytes > size_bytes:
        raise InputError(
            f"Cannot receive changes to '{base.location}': found a base of {base.size_bytes} "
            f"bytes, needed at most {size_bytes}."
        )


class _Receiving:
    """Gives the blocks of a stream, with those of its base between them, to a running transfer."""

    def __init__(
        self, stream: DiskStream, base: VirtualDisk | None, running: RunningTransfer
    ) -> None:
        self._running = running
        self._block_count = block_count(stream.size_bytes)
        self._arrived = ArrivedBlocks(stream)
        # Nothing is left to the parent to give: a stream that has passed cannot be read after all.
        self._known = KnownBlocks(running.request.known, running.needs, copying=False)
        self._base = BaseBlocks(base, self._is_skipped)

    def run(self) -> int:
        """Put all that the target does not hold; return the bytes that came or were read."""
        with self._running.workers() as workers:
            for block in self._blocks():
                self._running.poll()
                workers.give(block, self._running.poll)
        return self._arrived.bytes_arrived + self._base.bytes_read

    def _blocks(self) -> Iterator[Block]:
        first = 0
        for arrived in self._arrived.blocks():
            yield from self._below(first, arrived.index)
            yield Block(arrived.index, self._base.filled_in(arrived))
            first = arrived.index + 1
        yield from self._below(first, self._block_count)

    def _below(self, first: int, end: int) -> Iterator[Block]:
        """Yield what has to be put of blocks of which nothing arrived."""
        for index in range(first, end):
            self._running.poll()
            data = self._base.take(index)
            if data is not None:
                yield Block(index, data, self._known.digest(index))
                continue
            need = self._need_unread(index)
            if need is Need.PUT:
                yield Block(index, None, ZERO_DIGEST)
            else:
                self._running.progress.done(resumed=need is Need.HELD)

    def _need_unread(self, index: int) -> Need:
        """Return what a block needs that was not read: it is known, or the base has none there."""
        known = self._known.unread(index)
        if known is not None:
            return known[0]
        return self._running.needs.of(index, ZERO_DIGEST, copying=False)

    def _is_skipped(self, index: int) -> bool:
        self._running.poll()
        return self._known.unread(index) is not None
