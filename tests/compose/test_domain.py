"""Whether a machine is in a domain, and in which, by what it keeps of its own membership."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.guest_facts.domain import UNKNOWN_DOMAIN, joined_domain
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry_value import Kind, Value
from imageport.sandbox.sample.hives import merge_text

PARAMETERS = "\\ControlSet001\\Services\\Tcpip\\Parameters"
SID = struct.pack("<BB6s4I", 1, 4, b"\0\0\0\0\0\5", 21, 11, 22, 33)


def lsa_text(text: str, at: int = 8) -> bytes:
    data = text.encode("utf-16-le")
    return struct.pack("<HHI", len(data), len(data) + 2, at) + data


def set_policy(guest: Any, key: str, data: bytes) -> None:
    with Hive(guest.hive("SECURITY"), writable=True) as hive:
        hive.ensure(f"Policy\\{key}").set("", Value(Kind.NONE, data))
        hive.commit()


def domain_of(guest: Any) -> str:
    with ExitStack() as stack:
        registry = guest.registry(stack)
        return joined_domain(registry, guest.windows, registry.current_control_set)


def without_suffix(guest: Any) -> None:
    merge_text(guest.hive("SYSTEM"), f'[{PARAMETERS}]\n"NV Domain"=""\n"Domain"=""')


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (lsa_text("CORP"), "CORP"),
        (lsa_text("A" * 15), "A" * 15),
        (lsa_text("A" * 16), UNKNOWN_DOMAIN),
        (lsa_text("CORP", at=10), UNKNOWN_DOMAIN),
        (lsa_text("CO\nRP"), UNKNOWN_DOMAIN),
        (lsa_text(""), UNKNOWN_DOMAIN),
        (b"\4\0", UNKNOWN_DOMAIN),
        (b"", UNKNOWN_DOMAIN),
    ],
)
def test_a_joined_machine_without_a_dns_suffix_is_not_free(
    guest: Any, name: bytes, told: str
) -> None:
    without_suffix(guest)
    set_policy(guest, "PolPrDmN", name)
    assert domain_of(guest) == told
    set_policy(guest, "PolPrDmS", SID)
    assert domain_of(guest) == told


def test_the_dns_name_is_told_before_the_netbios_name(guest: Any) -> None:
    set_policy(guest, "PolPrDmN", lsa_text("CORP"))
    assert domain_of(guest) == "corp.example"


@pytest.mark.parametrize("sid", [b"", bytes(4), bytes(24)])
def test_a_machine_that_left_its_domain_is_free_although_its_secret_stays(
    guest: Any, sid: bytes
) -> None:
    without_suffix(guest)
    set_policy(guest, "PolPrDmN", lsa_text("WORKGROUP"))
    set_policy(guest, "PolPrDmS", sid)
    assert domain_of(guest) == ""


def test_a_workgroups_name_makes_no_domain(guest: Any) -> None:
    merge_text(guest.hive("SECURITY"), "[-\\Policy\\Secrets\\$MACHINE.ACC]")
    set_policy(guest, "PolPrDmN", lsa_text("WORKGROUP"))
    without_suffix(guest)
    assert domain_of(guest) == ""
