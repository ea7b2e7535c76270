# References: Google, About VM metadata; GoogleCloudPlatform/compute-image-import (network.ps1).
"""Google's metadata server by name, also where the site's own name servers do not know it."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Refusal, Tier
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.volumes.descriptors import Access
from imageport.compose.volumes.guest_files import GuestFiles

HOSTS = "Windows/System32/drivers/etc/hosts"
METADATA_ADDRESS, METADATA_NAME = "169.254.169.254", "metadata.google.internal"
_MAX_BYTES = 1024 * 1024
"""Block lists reach some hundred KiB."""


class NameMetadataServer(Step):
    """Name Google's metadata server, which tells the time too, in the hosts file."""

    name: ClassVar[str] = "name_metadata_server"
    tier: ClassVar[Tier] = Tier.RECOMMENDED
    clouds: ClassVar[tuple[str, ...]] = ("gcp",)

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse a hosts file that is none, or that sends the name elsewhere on purpose."""
        if not facts.files.exists(HOSTS):
            return []
        size = facts.files.size_bytes(HOSTS)
        if size > _MAX_BYTES:
            reason = f"The hosts file has {size} bytes, needed {_MAX_BYTES} or less."
            return [refusal("hosts_file", reason)]
        others = _addresses(facts.files) - {METADATA_ADDRESS}
        if not others:
            return []
        reason = f"The hosts file says that {METADATA_NAME} is {', '.join(sorted(others))}."
        return [refusal("hosts_file", reason)]

    def run(self, context: Context) -> None:
        """Add one line at the end of the file, in place."""
        line = f"{METADATA_ADDRESS} {METADATA_NAME}\r\n".encode("ascii")
        if not context.files.exists(HOSTS):
            context.recorder.ensure_folder(HOSTS.rpartition("/")[0], Access.USERS_READ)
            context.recorder.add_file(HOSTS, line, Access.USERS_READ)
        elif METADATA_ADDRESS not in _addresses(context.files):
            before = context.files.read(HOSTS, _MAX_BYTES)
            gap = b"\r\n" if before and not before.endswith(b"\n") else b""
            context.recorder.replace_file(HOSTS, before + gap + line)


def _addresses(files: GuestFiles) -> set[str]:
    """Return the addresses that the hosts file gives to the name."""
    text = files.read(HOSTS, _MAX_BYTES).decode("utf-8-sig", "replace")
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    return {words[0] for words in lines if METADATA_NAME in map(str.lower, words[1:])}
