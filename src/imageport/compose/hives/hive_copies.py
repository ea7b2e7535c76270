"""Copies of the guest's hives to work on: brought up to date from their logs, and found sound.

A hive that Windows did not write out to the end is one that its next start would replay; so is the
copy. The guest's own files stay as they are until composing rewrites them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imageport.compose.hives.base_block import HEADER_BYTES, MAX_HIVE_BYTES, HiveHeader
from imageport.compose.hives.soundness import hive_problem
from imageport.compose.hives.transaction_logs import LOG_SUFFIXES, Replayed, replay
from imageport.compose.volumes.guest_files import GuestFiles

_MAX_LOG_BYTES = 256 * 1024 * 1024
"""Windows lets a log grow to a part of its hive; checking one costs 0.25 s for a MiB."""


@dataclass(frozen=True, slots=True)
class HiveDamage:
    """Why a hive cannot be used; ``code`` is a refusal's, ``dirty_hive`` or ``bad_hive``."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class HiveCopy:
    """One hive's copy: where it came from, how it was found, and what was made of it.

    ``replay`` says what its logs added, "" for a hive that was clean. A dirty hive whose logs do
    not help stays as it was; it may be read, and has its damage noted.
    """

    name: str
    place: str
    path: Path
    header: HiveHeader
    replay: str = ""
    damage: tuple[HiveDamage, ...] = ()

    @property
    def can_be_opened(self) -> bool:
        """Say whether libhivex may see it."""
        return all(item.code != "bad_hive" for item in self.damage)


def copy_hive(files: GuestFiles, place: str, to: Path) -> HiveCopy:
    """Copy one hive to the file ``to``, replayed where it is dirty; what is wrong is noted."""
    name = to.name
    size = files.size_bytes(place)
    if size > MAX_HIVE_BYTES:
        damage = HiveDamage("bad_hive", f"Hive {name}: found {size} bytes, a limit is 1 GiB.")
        return HiveCopy(name, place, to, HiveHeader(0, 0, damage.reason), damage=(damage,))
    files.download(place, to)
    data = to.read_bytes()
    header = HiveHeader.parse(data[:HEADER_BYTES])
    if not header.is_dirty and not header.problem:
        return HiveCopy(name, place, to, header, damage=_unsound(name, data))
    result = replay(data, _logs(files, place))
    if isinstance(result, Replayed):
        damage_after = _unsound(name, result.data, after=" after its logs were applied")
        to.write_bytes(result.data)
        return HiveCopy(name, place, to, header, result.told, damage_after)
    return HiveCopy(name, place, to, header, damage=_unusable(name, header, data, result))


def _unusable(name: str, header: HiveHeader, data: bytes, why: str) -> tuple[HiveDamage, ...]:
    """Return what stands against a hive that its logs do not bring up to date."""
    if header.problem:
        return (HiveDamage("bad_hive", f"Hive {name}: {header.problem}; {why}."),)
    dirty = HiveDamage(
        "dirty_hive",
        f"Hive {name} has sequence numbers {header.sequence1} and {header.sequence2}: changes "
        f"still lie in its logs, and {why}.",
    )
    return (dirty, *_unsound(name, data))


def _unsound(name: str, data: bytes, after: str = "") -> tuple[HiveDamage, ...]:
    problem = hive_problem(data)
    if not problem:
        return ()
    return (HiveDamage("bad_hive", f"Hive {name}{after}: {problem.rstrip('.')}."),)


def _logs(files: GuestFiles, place: str) -> dict[str, bytes]:
    """Return the logs beside a hive by suffix; one that is far too large counts as none."""
    logs = {}
    for suffix in LOG_SUFFIXES:
        path = place + suffix
        if files.exists(path) and 0 < files.size_bytes(path) <= _MAX_LOG_BYTES:
            logs[suffix] = files.read(path, _MAX_LOG_BYTES)
    return logs
