"""A stream-optimized VMDK with 1 GiB of data, from an HTTPS server into a VHDX on a real share, by
this product and by curl, qemu-img convert and smbclient put.

Half of the data is random, half text, as in `test_convert_to_raw`. Both ways ask the same server
and write to the same Samba, one after the other in the same run. Figures are printed; only bytes
are asserted, because time belongs to the machine. Our way also hashes each block, which theirs does
not; read back in full, as an export is, it is told apart.
``pytest tests/benchmarks -m benchmark -s -k stream_to_share`` shows them.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imageport.model import GIB, MIB
from imageport.sandbox.samba import SambaServer
from tests.benchmarks.contest import PASSWORD, USER, measured, say, share
from tests.benchmarks.test_convert_to_raw import make_full
from tests.hypervisors.tls_server import Authority, Certificate, TlsServer

SCRIPT = Path(__file__).with_name("stream_contender.py")
PIECE_BYTES = MIB


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    with share(tmp_path_factory.mktemp("samba")) as server:
        yield server


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The raw disk; beside it lies ``disk.vmdk``, the stream."""
    folder = tmp_path_factory.mktemp("stream")
    raw = folder / "disk.raw"
    make_full(raw)
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run([*argv, raw, folder / "disk.vmdk"], check=True)
    yield raw
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.certificate()


@pytest.fixture(scope="module")
def server(image: Path, certificate: Certificate) -> Iterator[TlsServer]:
    stream = image.with_suffix(".vmdk")

    def send(_head: bytes, connection: ssl.SSLSocket) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {stream.stat().st_size}\r\n\r\n"
        connection.sendall(head.encode())
        with stream.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                connection.sendall(piece)

    with TlsServer(certificate, send) as started:
        yield started


def ours(
    level: str, server: TlsServer, certificate: Certificate, samba: SambaServer, scratch: Path
) -> dict[str, Any]:
    scratch.mkdir()
    settings = {
        "IMAGEPORT_SMB_USER": USER,
        "IMAGEPORT_SMB_PASSWORD": PASSWORD,
        "TMPDIR": str(scratch),
    }
    argv = [sys.executable, str(SCRIPT), level, str(server.port), certificate.thumbprint]
    argv += [samba.location("store"), f"ours-{level}.vhdx"]
    done = subprocess.run(
        argv, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"disk_bytes": stored_bytes(scratch)}


def theirs(
    server: TlsServer, authority: Authority, samba: SambaServer, scratch: Path
) -> dict[str, Any]:
    """Do it with three programs; figures are sums, memory is that of the largest."""
    scratch.mkdir()
    url = f"https://127.0.0.1:{server.port}/disk.vmdk"
    vmdk, vhdx = scratch / "disk.vmdk", scratch / "disk.vhdx"
    convert = ["qemu-img", "convert", "-f", "vmdk", "-O", "vhdx"]
    convert += ["-o", "block_size=32M,block_state_zero=off", str(vmdk), str(vhdx)]
    put = ["smbclient", "//127.0.0.1/store", "-p", str(samba.port), "-U", f"{USER}%{PASSWORD}"]
    put += ["-c", f"put {vhdx} theirs.vhdx"]
    download = ["curl", "-sS", "--fail", "--cacert", str(authority.file), "-o", str(vmdk), url]
    steps = [measured(argv, dict(os.environ)) for argv in (download, convert, put)]
    for step in steps:
        assert step["exit_code"] == 0, step["output"]
    return {
        "seconds": sum(step["seconds"] for step in steps),
        "cpu_seconds": sum(step["cpu_seconds"] for step in steps),
        "peak_mib": max(step["peak_mib"] for step in steps),
        "disk_bytes": stored_bytes(scratch),
        "steps": [step["seconds"] for step in steps],
    }


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def tell(title: str, found: dict[str, Any]) -> None:
    say(
        f"{title:<22} {found['seconds']:7.1f} s   CPU {found['cpu_seconds']:6.1f} s   "
        f"temporary disk {found['disk_bytes'] / MIB:7.0f} MiB   peak {found['peak_mib']:5.0f} MiB"
    )


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_stream_becomes_a_vhdx_on_a_share_without_a_temporary_file(
    image: Path,
    server: TlsServer,
    authority: Authority,
    certificate: Certificate,
    samba: SambaServer,
    tmp_path: Path,
):
    them = theirs(server, authority, samba, tmp_path / "theirs")
    us = ours("L1", server, certificate, samba, tmp_path / "ours")
    read_back = ours("L3", server, certificate, samba, tmp_path / "read-back")
    stream_bytes = image.with_suffix(".vmdk").stat().st_size
    say(f"stream of {stream_bytes / MIB:.0f} MiB, disk of {image.stat().st_size / GIB:.0f} GiB")
    tell("imageport", us)
    tell("and read back in full", read_back)
    tell("curl, qemu-img, smbclient", them)
    say(f"of these: {' + '.join(f'{seconds:.1f}' for seconds in them['steps'])} s")
    ratios = (them[name] / us[name] for name in ("seconds", "cpu_seconds", "peak_mib"))
    words = zip(("seconds", "CPU", "memory"), ratios, strict=True)
    say("ratio to imageport: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in words) + "\n")
    assert us["received_bytes"] == stream_bytes
    assert us["disk_bytes"] == read_back["disk_bytes"] == 0
    assert us["sent_bytes"] <= GIB + 64 * MIB
    assert "read back in full" in read_back["verified"]
    for name in ("ours-L1.vhdx", "ours-L3.vhdx", "theirs.vhdx"):
        copy = samba.shares["store"] / name
        argv = ["qemu-img", "compare", "-f", "raw", "-F", "vhdx", image, copy]
        subprocess.run(argv, check=True, capture_output=True)
