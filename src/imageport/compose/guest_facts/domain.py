# References: [MS-LSAD] 3.1.1.1 (policy object: primary domain's name and SID).
"""Which domain the machine is joined to."""

from __future__ import annotations

import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from imageport.compose.hives.hive import Hive
from imageport.compose.hives.hive_copies import copy_hive
from imageport.compose.hives.registry import Registry, hive_path, service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.volumes.guest_files import GuestFiles

UNKNOWN_DOMAIN = "unknown domain"
"""What stands for the name where nothing tells it."""
_MAX_NETBIOS_NAME = 15
_TEXT_HEAD = struct.Struct("<HHI")
"""A text as LSA keeps it: bytes, bytes of room, offset of the UTF-16 from here."""
_LEAST_SID_BYTES = 12


@dataclass(frozen=True, slots=True)
class _Membership:
    """What LSA's policy tells; ``name`` is the domain's NetBIOS name, "" when it does not."""

    is_joined: bool
    name: str = ""


def joined_domain(registry: Registry, files: GuestFiles, current: str) -> str:
    """Return the domain's DNS name, else its NetBIOS name or `UNKNOWN_DOMAIN`; "" in none."""
    parameters = f"{service_path(current, 'Tcpip')}\\Parameters"
    suffix = registry.text("SYSTEM", parameters, "NV Domain") or registry.text(
        "SYSTEM", parameters, "Domain"
    )
    told = _membership(files, has_suffix=bool(suffix))
    return suffix or told.name or UNKNOWN_DOMAIN if told.is_joined else ""


def _membership(files: GuestFiles, *, has_suffix: bool) -> _Membership:
    """Read the policy; the content of the machine's secret is not looked at.

    A hive that cannot be read is no reason to call a machine with a domain's name a free one.
    """
    if not files.exists(hive_path("SECURITY")):
        return _Membership(is_joined=False)
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_hive(files, hive_path("SECURITY"), Path(folder) / "SECURITY")
        if not copy.can_be_opened:
            return _Membership(is_joined=has_suffix)
        with Hive(copy.path) as hive:
            has_secret = hive.key("Policy\\Secrets\\$MACHINE.ACC") is not None
            if not has_secret or _has_left(hive):
                return _Membership(is_joined=False)
            return _Membership(
                is_joined=True, name=_netbios_name(hive.value("Policy\\PolPrDmN", ""))
            )


def _has_left(hive: Hive) -> bool:
    """Say whether there is no primary domain: the secret may outlive the membership.

    The name does not tell, for a workgroup's is kept in the same place.
    """
    if hive.key("Policy\\PolPrDmS") is None:
        return False
    sid = hive.value("Policy\\PolPrDmS", "")
    return sid is None or len(sid.data) < _LEAST_SID_BYTES or not sid.data.startswith(b"\1")


def _netbios_name(value: Value | None) -> str:
    data = value.data if value else b""
    if len(data) < _TEXT_HEAD.size:
        return ""
    length, _, at = _TEXT_HEAD.unpack_from(data)
    if length > 2 * _MAX_NETBIOS_NAME or at + length > len(data):
        return ""
    name = data[at : at + length].decode("utf-16-le", "replace").rstrip("\0")
    return name if name.isprintable() else ""
