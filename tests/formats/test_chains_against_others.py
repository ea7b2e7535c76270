"""Second opinions on chains, where others are right.

libvhdi reads partial blocks as we do (it takes ZERO and UNMAPPED blocks of a child from the parent,
which the specification forbids, so those it is not asked), and VHD chains but for two mistakes with
bitmaps. qemu-img opens no chain; it is asked for bases and for what `imageport convert` makes of a
chain.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from imageport.cli.main import main
from imageport.formats.opening import open_disk
from imageport.storage.local import LocalFolder
from tests.formats import vhd_bytes
from tests.formats.chain_bytes import FULL, MIB, PARTIAL, UNMAPPED, ZERO, Layer, write_layer

SYSTEM_PYTHON = "/usr/bin/python3"
READER = Path(__file__).parent / "read_with_libvhdi.py"


@pytest.fixture(scope="module")
def libvhdi() -> None:
    """Skip where the distribution has no libvhdi; not in CI."""
    found = subprocess.run([SYSTEM_PYTHON, "-c", "import pyvhdi"], check=False, capture_output=True)
    if found.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail("python3-libvhdi is not installed")
        pytest.skip("python3-libvhdi is not installed")


@pytest.mark.usefixtures("libvhdi")
@pytest.mark.parametrize("sector_bytes", [512, 4096])
@pytest.mark.parametrize("depth", [2, 4])
def test_libvhdi_reads_partial_blocks_as_we_do(
    folder: LocalFolder, sector_bytes: int, depth: int
) -> None:
    size = 6 * MIB + 3 * sector_bytes
    whole = dict.fromkeys(range(4), (FULL, ()))
    made = [write_layer(folder, "g.vhdx", Layer(size, 2 * MIB, sector_bytes, whole))]
    for number in range(1, depth):
        sectors = {0: 2 * MIB // sector_bytes, 1: 2 * MIB // sector_bytes, 3: 3}
        blocks = {
            block: (PARTIAL, range(number % 3, count, number + 1))
            for block, count in sectors.items()
        }
        layer = Layer(size, 2 * MIB, sector_bytes, blocks)
        made.append(write_layer(folder, f"g.{number}.avhdx", layer, parent=made[-1]))
    command = [SYSTEM_PYTHON, str(READER), *(one.name for one in reversed(made))]
    said = subprocess.run(command, cwd=folder.root, check=True, capture_output=True, text=True)
    with open_disk(folder.open_read(made[-1].name), folder) as disk:
        ours = hashlib.sha256(disk.read_at(0, disk.size_bytes)).hexdigest()
    assert said.stdout.split() == [str(size), ours]
    assert ours == hashlib.sha256(made[-1].content).hexdigest()


@pytest.mark.usefixtures("libvhdi")
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_libvhdi_reads_avhd_chains_as_we_do(folder: LocalFolder, depth: int) -> None:
    # It takes a sector for present when an earlier one of its bitmap's byte is: runs here begin and
    # end at multiples of eight. Of blocks below 1 MiB, whose bitmap is padded, it reads only the
    # first one of a child rightly.
    size = 4 * MIB - 3 * 512
    made = [vhd_bytes.make(vhd_bytes.Recipe(size, blocks={0: [(0, 1024)], 5: [(8, 800)]}))]
    for number in range(1, depth):
        runs = [(8 * number, 16), (256 + 64 * number, 128)]
        layer = vhd_bytes.Recipe(
            size,
            2 * MIB if number % 2 else MIB,
            {0: runs, 1: runs[1:]},
            order=[1, 0],
            kind=vhd_bytes.DIFFERENCING,
            seed=number,
            parent=made[-1],
        )
        made.append(vhd_bytes.make(layer))
    names = [f"g.{number}.avhd" for number in range(depth)]
    for name, one in zip(names, made, strict=True):
        (folder.root / name).write_bytes(one.content)
    command = [SYSTEM_PYTHON, str(READER), *reversed(names)]
    said = subprocess.run(command, cwd=folder.root, check=True, capture_output=True, text=True)
    with open_disk(folder.open_read(names[-1]), folder) as disk:
        ours = hashlib.sha256(disk.read_at(0, disk.size_bytes)).hexdigest()
    assert said.stdout.split() == [str(size), ours]
    assert ours == hashlib.sha256(made[-1].guest).hexdigest()


def test_qemu_agrees_on_a_base_and_on_a_chain_that_was_made_flat(
    folder: LocalFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    size = 5 * MIB + 7 * 512
    base = Layer(size, MIB, blocks={0: (FULL, ()), 2: (ZERO, ()), 5: (FULL, ())})
    child = Layer(
        size, 2 * MIB, blocks={0: (PARTIAL, range(3, 900, 7)), 1: (UNMAPPED, ()), 2: (FULL, ())}
    )
    made = [write_layer(folder, "g.vhdx", base)]
    made.append(write_layer(folder, "g.1.avhdx", child, parent=made[0]))
    flat = folder.root / "flat.vhdx"
    assert main(["convert", "--json", str(folder.root / "g.1.avhdx"), str(flat)]) == 0
    capsys.readouterr()
    for name, one in (("g.vhdx", made[0]), ("flat.vhdx", made[1])):
        (folder.root / "wanted").write_bytes(one.content)
        command = ["qemu-img", "compare", "-f", "raw", "-F", "vhdx", "wanted", name]
        subprocess.run(command, cwd=folder.root, check=True, capture_output=True)
