"""The player's own reading of driver packages."""

from __future__ import annotations

import pytest

from imageport.sandbox.guest_player.driver_install import compatible_ids
from imageport.sandbox.guest_player.inf import InfError, parse_inf

_HEAD = """[Version]
Signature="$WINDOWS NT$"   ; comment with "quotes"
[Manufacturer]
%Maker%=Models,{decorations}
[Strings]
Maker="A, Inc."
"""


def _inf(decorations: str, *sections: str) -> bytes:
    return (_HEAD.replace("{decorations}", decorations) + "\n".join(sections)).encode()


def test_the_newest_models_that_this_build_has_are_taken():
    inf = parse_inf(
        _inf(
            "NTamd64,NTamd64.10.0...19041,NTamd64.10.0...99999,NTx86",
            "[Models.NTamd64]\n%Maker%=Old,PCI\\VEN_1",
            "[Models.NTamd64.10.0...19041]\n%Maker%=Now,PCI\\VEN_2,PCI\\VEN_3",
            "[Models.NTamd64.10.0...99999]\n%Maker%=Later,PCI\\VEN_4",
        )
    )
    assert [(m.install, m.hardware_id) for m in inf.models()] == [
        ("Now", "PCI\\VEN_2"),
        ("Now", "PCI\\VEN_3"),
    ]


def test_strings_may_hold_commas_and_text_may_be_utf_16():
    data = _inf("NTamd64", "[Models.NTamd64]\n%Maker%=I,PCI\\VEN_1").decode()
    inf = parse_inf(data.encode("utf-16"))
    assert inf.models()[0].description == "A, Inc."


def test_a_package_for_other_processors_only_is_refused():
    with pytest.raises(InfError, match="no model"):
        parse_inf(_inf("NTx86", "[Models.NTx86]\n%Maker%=I,PCI\\VEN_1"))


def test_a_text_that_is_no_inf_is_refused():
    with pytest.raises(InfError) as caught:
        parse_inf(b"hello")
    assert caught.value.code == "0xE0000100"


def test_a_device_goes_by_four_names():
    assert compatible_ids("PCI\\VEN_1D0F&DEV_EC20&SUBSYS_EC201D0F&REV_00") == [
        "PCI\\VEN_1D0F&DEV_EC20&SUBSYS_EC201D0F&REV_00",
        "PCI\\VEN_1D0F&DEV_EC20&SUBSYS_EC201D0F",
        "PCI\\VEN_1D0F&DEV_EC20&REV_00",
        "PCI\\VEN_1D0F&DEV_EC20",
    ]
