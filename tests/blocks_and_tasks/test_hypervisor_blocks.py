"""Connections to hypervisors: what they refuse, and that they show no password."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from blocks import PvsStore, Site, SmbShare, VsphereConnection, XenServerConnection
from imageport.errors import InputError

SECRET = "Pa55-of-the-exporter"
PIN = "ab" * 32


@pytest.mark.parametrize("kind", [VsphereConnection, XenServerConnection])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "found none or several sources"),
        ({"password": SECRET, "password_file": "/x"}, "found none or several sources"),
        ({"password": SECRET, "thumbprint": "ab:cd"}, "thumbprint"),
        ({"password": SECRET, "username": ""}, "username"),
        ({"password": SECRET, "host": "https://vc"}, "host"),
        ({"password": SECRET, "verify": False}, "verify"),
    ],
)
def test_what_cannot_work_is_refused_without_showing_the_password(
    kind: type[VsphereConnection | XenServerConnection], values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        kind(**{"host": "vc.example", "username": "u", **values})  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", [VsphereConnection, XenServerConnection])
def test_a_connection_opens_its_hypervisor_and_shows_no_password(
    kind: type[VsphereConnection | XenServerConnection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXPORTER", SECRET)
    block = kind(
        host="hv.example", port=8443, username="u", password_variable="EXPORTER", thumbprint=PIN
    )
    with block.open_hypervisor() as hypervisor:
        assert "hv.example" in hypervisor.location
        assert SECRET not in repr(block) + repr(vars(hypervisor))
    (tmp_path / "secret").write_text(SECRET + "\n")
    filed = kind(host="h", username="u", password_file=str(tmp_path / "secret"), thumbprint=PIN)
    with filed.open_hypervisor() as hypervisor:
        assert hypervisor.location == "h"


def test_a_pool_may_pin_each_of_its_hosts() -> None:
    XenServerConnection(host="h", username="u", password=SECRET, thumbprint=f"{PIN}, {PIN}")
    with pytest.raises(ValidationError):
        VsphereConnection(host="h", username="u", password=SECRET, thumbprint=f"{PIN},{PIN}")


def test_a_site_without_an_export_folder_says_where_to_name_one(tmp_path: Path) -> None:
    store = PvsStore(share=SmbShare(host="h", share="s"))
    site = Site(name="a", work_pool="a", store=store, state_folder=str(tmp_path))
    with (
        pytest.raises(InputError, match="has no export folder") as caught,
        site.open_source(exports=True),
    ):
        pass
    assert "Export folder" in caught.value.hint


def test_exports_go_to_no_vdisk_store(tmp_path: Path) -> None:
    store = PvsStore(share=SmbShare(host="h", share="vdisks"), folder="/gold/")
    same = PvsStore(share=SmbShare(host="H", share="vDisks", folder="gold"))
    with pytest.raises(ValidationError, match="found the vDisk store"):
        Site(name="a", work_pool="a", store=store, exports=same, state_folder=str(tmp_path))
