# References: the regf format: dirty state of a hive, multiple transaction log files.
"""Bringing a dirty hive up to date from its transaction logs, as Windows does when it loads one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imageport.compose.hives.base_block import (
    BASE_BLOCK_BYTES,
    HEADER_BYTES,
    HiveHeader,
    sealed,
)
from imageport.compose.hives.log_layout import LogFile, Page

LOG_SUFFIXES = (".LOG", ".LOG1", ".LOG2")
"""One log up to Windows XP, which later versions leave empty; two in turns since."""
_LAST_SEQUENCE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Replayed:
    """A hive brought up to date: clean, its sequence numbers above all that its logs hold.

    ``told`` says in words what was applied and what ended it.
    """

    data: bytes
    told: str


@dataclass(slots=True)
class _Run:
    """What is applied so far: ``data`` is the hive, ``sequence`` that of the last entry."""

    data: bytearray
    bins_bytes: int
    sequence: int | None = None
    applied: int = 0
    ended_by: str = ""

    def apply(self, pages: list[Page], bins_bytes: int) -> None:
        """Write pages, all inside a hive of that length."""
        self.bins_bytes = bins_bytes
        self.data.extend(bytes(max(0, BASE_BLOCK_BYTES + bins_bytes - len(self.data))))
        for page in pages:
            at = BASE_BLOCK_BYTES + page.offset
            self.data[at : at + len(page.data)] = page.data


def replay(primary: bytes, logs: Mapping[str, bytes]) -> Replayed | str:
    """Return a dirty or headless hive brought up to date, or why that cannot be.

    Args:
        primary: the hive's file; its sequence numbers differ or its checksum is wrong.
        logs: the logs beside it by suffix, ``.LOG1``; missing ones are left out.

    Whether the result is a sound hive is not judged here. Any bytes may be handed in.
    """
    header = HiveHeader.parse(primary[:HEADER_BYTES])
    found = [LogFile.parse(name, data) for name, data in logs.items()]
    reasons = [f"{log.name} {log.problem}" for log in found if log.problem]
    usable = [log for log in found if not log.problem]
    highest = max([0, *(log.highest_sequence() for log in usable)])
    if not header.problem:
        highest = max(highest, header.sequence1, header.sequence2)
    if highest >= _LAST_SEQUENCE:
        return f"found sequence number {highest}, needed one that another can follow"
    for apply in (_replay_entries, _replay_pages):
        result = apply(primary, header, usable)
        if isinstance(result, str):
            reasons += [result] if result else []
        else:
            run, block, told = result
            run.data[:HEADER_BYTES] = sealed(block, sequence=highest + 1, bins_bytes=run.bins_bytes)
            return Replayed(bytes(run.data), told)
    return "; ".join(reasons) or "there are no transaction logs beside it"


def _replay_entries(
    primary: bytes, header: HiveHeader, logs: list[LogFile]
) -> tuple[_Run, bytes, str] | str:
    """Apply logs of the new format: entry after entry while the sequence numbers follow."""
    new = [log for log in logs if log.is_new]
    if not new:
        return ""
    ordered = sorted(new, key=lambda log: log.header.sequence1)  # they are written in turns
    block, first = primary[:HEADER_BYTES], header.sequence1
    if header.problem:
        ordered = _joined(ordered)
        block, first = ordered[0].data[:HEADER_BYTES], ordered[0].header.sequence1
    run = _Run(bytearray(primary).ljust(BASE_BLOCK_BYTES, b"\0"), header.bins_bytes)
    names = [log.name for log in ordered if _apply_entries(run, log, first)]
    ended = f", ended by {run.ended_by}" if run.ended_by else ""
    if run.sequence is None:
        return f"no whole log entry follows sequence number {first}{ended}"
    count = "1 entry" if run.applied == 1 else f"{run.applied} entries"
    return run, block, f"{count} of {' and '.join(names)} up to {run.sequence}{ended}"


def _joined(ordered: list[LogFile]) -> list[LogFile]:
    """Return the logs to start from when the hive does not say how far it is.

    An older log counts when the newest goes on where it ends; else the hive is past it, and its
    pages would put parts of it back.
    """
    newest = ordered[-1]
    for older in ordered[:-1]:
        last = max((entry.sequence for entry in older.entries()), default=None)
        if last is not None and last + 1 == newest.header.sequence1:
            return [older, newest]
    return [newest]


def _apply_entries(run: _Run, log: LogFile, first: int) -> bool:
    """Apply what follows of one log; says whether anything did."""
    before, previous = run.applied, None
    for entry in log.entries():
        # After the newest entry lies what older writes left: its numbers do not go on.
        if previous is not None and entry.sequence != previous + 1:
            break
        previous = entry.sequence
        if entry.sequence < first or entry.sequence <= (run.sequence or 0):
            continue  # the hive has it already
        if run.sequence is not None and entry.sequence != run.sequence + 1:
            run.ended_by = f"a gap before entry {entry.sequence} of {log.name}"
            break
        pages = entry.pages()
        if isinstance(pages, str):
            run.ended_by = f"{log.name}: {pages}"
            break
        run.apply(pages, entry.bins_bytes)
        run.sequence, run.applied = entry.sequence, run.applied + 1
    return run.applied > before


def _replay_pages(
    primary: bytes, header: HiveHeader, logs: list[LogFile]
) -> tuple[_Run, bytes, str] | str:
    """Apply the log of the old format that was written together with the hive."""
    old = [log for log in logs if not log.is_new]
    if not old:
        return ""
    written = header.written
    if header.problem:  # the first hive bin keeps a copy of the time
        bin_head = primary[BASE_BLOCK_BYTES : BASE_BLOCK_BYTES + 28]
        written = int.from_bytes(bin_head[20:28], "little")
    fitting = [log for log in old if log.header.written == written]
    if not fitting:
        return "no log has the time at which the hive was last written"
    log = max(fitting, key=lambda log: log.header.sequence1)
    pages = log.dirty_pages()
    if isinstance(pages, str):
        return f"{log.name}: {pages}"
    run = _Run(bytearray(primary).ljust(BASE_BLOCK_BYTES, b"\0"), 0)
    run.apply(pages, log.header.bins_bytes)
    block = log.data[:HEADER_BYTES] if header.problem else primary[:HEADER_BYTES]
    return run, block, f"{len(pages)} pages of 512 bytes of {log.name}"
