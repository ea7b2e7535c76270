from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from imageport.sandbox.guest_player.inf import parse_inf
from imageport.sandbox.sample.driver_package import HARDWARE_IDS, VERSION, write_ena_package


def test_the_package_names_its_devices_service_and_files(tmp_path: Path):
    inf_path = write_ena_package(tmp_path / "ena")
    inf = parse_inf(inf_path.read_bytes())
    assert {model.hardware_id for model in inf.models()} == set(HARDWARE_IDS)
    assert inf.service("ENA_Install") == ("ena", "ENA_Service")
    assert inf.value("Version", "CatalogFile") == "ena.cat"
    for name in ("ena.inf", "ena.cat", *inf.files()):
        assert (tmp_path / "ena" / name).stat().st_size > 0


def test_its_driver_is_a_program_that_other_tools_read(tmp_path: Path):
    write_ena_package(tmp_path)
    shown = subprocess.run(
        ["objdump", "-f", tmp_path / "ena.sys"], capture_output=True, text=True, check=True
    ).stdout
    assert "pei-x86-64" in shown
    assert VERSION.encode("utf-16-le") in (tmp_path / "ena.sys").read_bytes()


def test_its_catalogue_is_a_pkcs7_structure(tmp_path: Path):
    write_ena_package(tmp_path)
    shown = subprocess.run(
        ["openssl", "asn1parse", "-inform", "DER", "-in", tmp_path / "ena.cat"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "pkcs7-signedData" in shown


def test_it_is_the_same_at_every_call(tmp_path: Path):
    digests = [
        [hashlib.sha256(path.read_bytes()).digest() for path in sorted(folder.iterdir())]
        for folder in (write_ena_package(tmp_path / n).parent for n in ("a", "b"))
    ]
    assert digests[0] == digests[1]
