"""Static WINS servers go with the static address; static IPv6 stays and is told."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.guest_facts.network import netbios_path
from imageport.compose.hives.registry import Registry
from imageport.compose.hives.registry_value import Value
from imageport.compose.inspection import inspect
from imageport.sandbox.sample.hives import merge_text, with_parents

SETS = ("ControlSet001", "ControlSet002")
STATIC, DYNAMIC = "{7c3f2b90-5a1d-4e86-b0f4-2d9e8a61c753}", "{e58a07d4-16b9-4f23-9c80-71d6f3a2b05e}"
LUID = "0000000080000600"
IPV6 = "Control\\Nsi\\{eb004a01-9b1a-11d4-9123-0050047759bc}"


def hexadecimal(value: Value) -> str:
    return f"hex({value.kind}):" + ",".join(f"{byte:02x}" for byte in value.data)


def edit(guest: Any, text: str) -> None:
    merge_text(guest.hive("SYSTEM"), with_parents("", text))


def give_wins(guest: Any, interface: str, *servers: str) -> None:
    for control_set in SETS:
        value = hexadecimal(Value.texts(list(servers)))
        edit(guest, f'[\\{netbios_path(control_set, interface)}]\n"NameServerList"={value}\n')


def give_ipv6(guest: Any, *names: str) -> None:
    for subkey in ("10", "16"):
        values = "".join(f'"{name}"=hex:00\n' for name in names)
        edit(guest, f"[\\{SETS[0]}\\{IPV6}\\{subkey}]\n{values}")


def registry_of(guest: Any, stack: ExitStack) -> Registry:
    found: Registry = guest.registry(stack)
    return found


def network_of(guest: Any) -> tuple[str, ...]:
    with ExitStack() as stack:
        return inspect(registry_of(guest, stack), guest.windows, guest.table).network


@pytest.mark.parametrize(
    ("interface", "servers", "left"),
    [
        (STATIC, ("10.20.30.7", "10.20.30.8"), []),
        (STATIC, (), []),
        (DYNAMIC, ("10.20.30.7",), ["10.20.30.7"]),
    ],
)
def test_wins_servers_go_with_the_static_address(
    guest: Any, interface: str, servers: tuple[str, ...], left: list[str]
) -> None:
    give_wins(guest, interface, *servers)
    changes = [c for c in guest.compose(EngineOptions(rearm="off")) if c.name == "NameServerList"]
    assert len(changes) == (len(SETS) if list(servers) != left else 0)
    assert {c.before for c in changes} <= {"REG_MULTI_SZ 10.20.30.7 | 10.20.30.8"}
    with ExitStack() as stack:
        registry = registry_of(guest, stack)
        for control_set in SETS:
            path = netbios_path(control_set, interface)
            value = registry.value("SYSTEM", path, "NameServerList")
            assert value is not None
            assert value.as_texts() == left


def test_wins_servers_are_told_with_their_interface(guest: Any) -> None:
    give_wins(guest, STATIC, "10.20.30.7")
    (told,) = [line for line in network_of(guest) if line.startswith(STATIC)]
    assert told.endswith("name servers 10.20.30.5 10.20.30.6, WINS servers 10.20.30.7")


def test_static_ipv6_addresses_stay_and_are_told(guest: Any) -> None:
    address = f"{LUID}20010db8000000000000000000000005"
    give_ipv6(guest, address, LUID, "no address")
    assert "static IPv6 2001:db8::5, which stays" in network_of(guest)
    changes = guest.compose(EngineOptions(rearm="off"))
    assert not [change for change in changes if "\\Nsi\\" in change.path]
    item = guest.judge(options=EngineOptions(rearm="off"))["addresses"]
    assert item.passed
    assert item.evidence == (
        "every interface takes its IPv4 address from DHCP; static IPv6 2001:db8::5 stays"
    )


def test_a_static_ipv4_address_fails_the_verdict_whatever_ipv6_says(guest: Any) -> None:
    give_ipv6(guest, f"{LUID}20010db8000000000000000000000005")
    item = guest.judge(options=EngineOptions(rearm="off"))["addresses"]
    assert not item.passed
    assert f"{STATIC} has a static IPv4 address" in item.evidence
