# References: xapi-project/xen-api, ocaml/xapi/export_raw_vdi.ml; ocaml/xapi-consts/constants.ml
# (max_vhd_size); vhd_format/f.ml.
"""A disk on its way out of a pool: the stream, and the task that alone says whether it was all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from imageport.errors import (
    BadDisk,
    ExportInterrupted,
    HypervisorError,
    HypervisorRefused,
    InputError,
    VerificationFailed,
    VmMissing,
)
from imageport.formats.disk_stream import DiskStream
from imageport.formats.raw_stream import RawStream
from imageport.formats.vhd_stream import VhdStream
from imageport.hypervisor import FrozenDisk
from imageport.hypervisors.xenserver.connection import PoolConnection
from imageport.hypervisors.xenserver.export_request import ExportedBytes, NotSent, request_export
from imageport.hypervisors.xenserver.leftovers import PENDING, Leftovers
from imageport.hypervisors.xenserver.records import ApiRecord
from imageport.hypervisors.xenserver.refusals import export_failure

LARGEST_VHD_BYTES: Final = 2040 * 1024**3
"""xapi refuses to make a larger VHD (VDI_TOO_LARGE); such disks go raw, holes as zeros."""
FINISH_SECONDS: Final = 300.0
"""From the last byte to ``success``: xapi may detach the disk first, five minutes at most."""
REASON_SECONDS: Final = 10.0
"""From a broken stream to the task's reason; without one the stream's own error stands."""
_SUCCESS: Final = "success"


def open_export(
    connection: PoolConnection, leftovers: Leftovers, frozen: FrozenDisk, since: FrozenDisk | None
) -> DiskStream:
    """Begin to receive a disk, or what changed in it since an earlier snapshot.

    Raises:
        VmMissing: the snapshot's disk is gone.
        HypervisorRefused: it cannot be sent so.
        ExportInterrupted: it failed before its first byte.
    """
    form = "vhd" if frozen.size_bytes <= LARGEST_VHD_BYTES else "raw"
    doing = f"find '{frozen.location}'"
    vdis = [connection.text("VDI.get_by_uuid", frozen.change_id, doing=doing)]
    query = {"vdi": frozen.change_id, "format": form}
    if since is not None:
        vdis.append(_base(connection, frozen, since))
        query["base"] = since.change_id
    task = leftovers.begin(frozen, f"{form} of disk {frozen.change_id} of {frozen.vm.name}")
    export = _Export(leftovers, frozen, task, vdis)
    try:
        body = _requested(connection, export, query | {"task_id": task})
        return _opened(export, body, form, is_difference=since is not None)
    except ExportInterrupted as error:
        if since is None:
            raise
        # The reason may lie in the differences, and would then be there at every attempt.
        raise _no_difference(frozen, error.message) from error


def _requested(connection: PoolConnection, export: _Export, query: dict[str, str]) -> ExportedBytes:
    try:
        return request_export(connection, query, export.frozen.location)
    except NotSent as error:
        raise export.not_sent(error) from None
    except ExportInterrupted as error:
        raise export.interrupted(error) from error
    except BaseException:
        export.give_up(is_worked_on=False)
        raise


def _base(connection: PoolConnection, frozen: FrozenDisk, since: FrozenDisk) -> str:
    """Return the reference of the earlier snapshot's disk, if differences to it can be sent."""
    if since.disk.key != frozen.disk.key:
        raise InputError(
            f"Bad earlier snapshot: found '{since.location}', needed one of the disk of "
            f"'{frozen.location}'."
        )
    cause = ""
    if since.size_bytes != frozen.size_bytes:
        cause = f"the disk had {since.size_bytes} bytes then and has {frozen.size_bytes} now"
    elif frozen.size_bytes > LARGEST_VHD_BYTES:
        cause = f"it is larger than the {LARGEST_VHD_BYTES} bytes of a VHD"
    if not cause:
        try:
            return connection.text("VDI.get_by_uuid", since.change_id)
        except VmMissing:
            cause = f"'{since.location}' is gone"
    raise _no_difference(frozen, cause)


def _no_difference(frozen: FrozenDisk, cause: str) -> HypervisorRefused:
    return HypervisorRefused(
        f"Cannot send what changed in '{frozen.location}': {cause.rstrip('.')}.",
        hint="Export all of it, and keep the snapshot that the next export is to compare with.",
    )


def _opened(export: _Export, body: ExportedBytes, form: str, *, is_difference: bool) -> DiskStream:
    try:
        try:
            stream = _decoder(export.frozen, body, form, is_difference=is_difference)
        except (ExportInterrupted, BadDisk) as error:
            raise export.reason() or error from error
    except BaseException:
        body.close()
        export.give_up()
        raise
    return XenServerStream(export, body, stream)


def _decoder(
    frozen: FrozenDisk, body: ExportedBytes, form: str, *, is_difference: bool
) -> DiskStream:
    """Return what decodes the body; refuse a size or a kind of VHD that was not asked for."""
    if form == "raw":
        return RawStream(body, frozen.size_bytes)
    stream = VhdStream(body)
    if stream.size_bytes != frozen.size_bytes:
        raise VerificationFailed(
            f"Bad export of '{frozen.location}': found a disk of {stream.size_bytes} bytes, "
            f"needed {frozen.size_bytes}."
        )
    if is_difference and not stream.is_differencing:
        # What such a storage leaves out is zeros, not what the earlier snapshot has.
        raise _no_difference(frozen, "its storage sends all of it")
    if stream.is_differencing and not is_difference:
        raise BadDisk(
            f"Bad export of '{frozen.location}': found differences to '{stream.parent_id}', "
            f"needed all of the disk."
        )
    return stream


class _Export:
    """The task of one export and what it attached; ended exactly once."""

    def __init__(
        self, leftovers: Leftovers, frozen: FrozenDisk, task: str, vdis: list[str]
    ) -> None:
        self.frozen = frozen
        self._leftovers = leftovers
        self._task = task
        self._vdis = vdis
        self._is_over = False

    def not_sent(self, error: NotSent) -> HypervisorError:
        """End it and return the error: the task's reason where it has one."""
        reason = self.reason(is_over=not error.is_begun)
        self.give_up(is_worked_on=error.is_begun)
        if reason is not None:
            return reason
        kind = HypervisorRefused if error.is_final else ExportInterrupted
        return kind(f"Cannot export '{self.frozen.location}': {error.cause}.")

    def interrupted(self, error: ExportInterrupted) -> HypervisorError:
        """End it and return the error: the task's reason where it has one."""
        reason = self.reason()
        self.give_up()
        return reason or error

    def reason(self, *, is_over: bool = False) -> HypervisorError | None:
        """Return why the task failed; None when it does not say so in time."""
        try:
            record = self._completed(0 if is_over else REASON_SECONDS)
        except ExportInterrupted as gone:
            return gone
        except HypervisorError:
            return None
        if record.text("status") in {*PENDING, _SUCCESS}:
            return None
        return export_failure(record.texts("error_info"), self.frozen.location)

    def check_success(self) -> str:
        """Wait for the task's success and forget the task; return what it said.

        Raises:
            HypervisorError: it failed, or does not come to an end.
        """
        record = self._completed(FINISH_SECONDS)
        status = record.text("status")
        if status in PENDING:
            raise ExportInterrupted(
                f"Cannot export '{self.frozen.location}': its task is still {status} "
                f"{FINISH_SECONDS:.0f} seconds after the last byte."
            )
        if status != _SUCCESS:
            raise export_failure(record.texts("error_info"), self.frozen.location)
        self._is_over = True
        self._leftovers.forget(self._task)
        return f"task {record.text('uuid')} ended with success"

    def _completed(self, seconds: float) -> ApiRecord:
        try:
            return self._leftovers.wait(self._task, seconds)
        except VmMissing:
            raise ExportInterrupted(
                f"Cannot export '{self.frozen.location}': its task is gone."
            ) from None

    def give_up(self, *, is_worked_on: bool = True) -> None:
        """End it, unless it is over."""
        if not self._is_over:
            self._is_over = True
            self._leftovers.give_up(self._task, self._vdis, is_worked_on=is_worked_on)


class XenServerStream(DiskStream):
    """A disk leaving a pool; its task is ended whatever happens."""

    def __init__(self, export: _Export, body: ExportedBytes, decoder: DiskStream) -> None:
        self.location = decoder.location
        self.format_name = decoder.format_name
        self.sector_bytes = decoder.sector_bytes
        self._export = export
        self._body = body
        self._decoder = decoder

    @property
    def size_bytes(self) -> int:
        """Return the size as the snapshot has it."""
        return self._decoder.size_bytes

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes); of differences only what changed, zeros too.

        Raises:
            ExportInterrupted: the bytes end early, or the task failed in a way that may pass.
            HypervisorRefused: the task failed for good.
            BadDisk: the bytes contradict the format, and the task knows of no failure.
        """
        try:
            yield from self._decoder.pieces()
        except (ExportInterrupted, BadDisk) as error:
            # An error page may stand in the middle of the data: the task knows better.
            raise self._export.reason() or error from error

    def finish(self) -> str:
        """Wait for the task, and say what was compared."""
        said = self._decoder.finish()
        with contextlib.suppress(ExportInterrupted):  # how it closes says nothing; the task does
            if self._body.read(1):
                raise VerificationFailed(
                    f"Bad export of '{self.location}': found more bytes behind the disk's end."
                )
        outcome = self._export.check_success()
        self._body.close()
        return f"{said}; the size is that of the snapshot; {outcome}"

    def close(self) -> None:
        """Close the connection; end the task unless `finish` did."""
        self._body.close()
        self._export.give_up()
