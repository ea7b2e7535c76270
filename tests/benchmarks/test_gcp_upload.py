"""Images from 4 GiB with 1 GiB of data: by this product in both ways, and as Google's pages say.

The others are GNU tar with ``-Scz`` and then ``google-cloud-storage``, or ``gcloud storage cp``
where that is on the PATH. All write to the same emulator, one after the other in the same run, and
all have it import what they brought. We read a VHDX from a real share; they are given a flat image
on the local disk, as they read no VHDX. Figures are printed; only bytes are asserted, because time
belongs to the machine. ``pytest tests/benchmarks -m slow -s`` shows them.

The data does not shrink, so that bytes can be compared; what compresses is in everybody's favour.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imageport.clouds.gcp.segment_disk import SegmentDisk
from imageport.formats.opening import open_disk
from imageport.model import BLOCK_BYTES, MIB
from imageport.sandbox.gcp.service import GcpService
from imageport.sandbox.samba import SambaServer
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation
from tests.benchmarks.contest import (
    DATA_BYTES,
    NAME,
    PASSWORD,
    SIZE_BYTES,
    USER,
    flat_image,
    run_contender,
    say,
    share,
    tell,
    tell_ratio,
    write_image,
)
from tests.benchmarks.gcp_contender import Place

SCRIPT = Path(__file__).with_name("gcp_contender.py")
TOLD = 1.02
"""Headers, maps and listings beside the data."""


@pytest.fixture(scope="module")
def samba(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    with share(tmp_path_factory.mktemp("samba")) as server:
        yield server


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcpService]:
    with GcpService(tmp_path_factory.mktemp("gcp")) as service:
        yield service


def run(google: GcpService, how: str, *arguments: str) -> dict[str, Any]:
    """Run one contender; what it sent is what the emulator received."""
    google.forget_calls()
    key_file = str(google.credentials_file)
    found = run_contender(SCRIPT, how, google.endpoint, key_file, *arguments)
    requests = google.requests().values()
    sent = sum(int(row["bytes_in"]) for row in requests)
    written = sum(int(row["requests"]) for row in requests if row["class"] == "A")
    return found | {"sent_bytes": sent, "class_a": written}


def show(title: str, figures: dict[str, Any]) -> None:
    tell(title, figures)
    say(f"{'':<10} {figures['class_a']:,} requests of class A")


def sampled_blocks_are_equal(google: GcpService, samba: SambaServer, image: str) -> bool:
    """Compare blocks of the image, read from the bucket, with the disk on the share."""
    place = Place(google.endpoint, str(google.credentials_file))
    location = SmbLocation.parse(samba.location("store"))
    chosen = random.sample(range(SIZE_BYTES // BLOCK_BYTES), 200)
    with (
        SmbFolder(location, SmbCredentials(USER, PASSWORD)) as folder,
        open_disk(folder.open_read(NAME)) as disk,
        SegmentDisk(place.account, image) as found,
    ):
        equal = all(
            found.read_at(index * BLOCK_BYTES, BLOCK_BYTES)
            == disk.read_at(index * BLOCK_BYTES, BLOCK_BYTES)
            for index in chosen
        )
    place.clients.close()
    return equal


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_image_at_google_costs_the_allocated_bytes_once_and_then_what_changed(
    samba: SambaServer, google: GcpService, tmp_path: Path
):
    allocated_bytes = write_image(samba)
    place = samba.location("store")
    segments = run(google, "segments", place, NAME)
    delta = run(google, "delta", place, NAME, segments["image"])
    stream = run(google, "stream", place, NAME)
    flat_image(samba, tmp_path / "flat.raw")
    folder = tmp_path / "archive"
    folder.mkdir()
    theirs = {"tar+client": run(google, "client", str(tmp_path / "flat.raw"), str(folder))}
    if shutil.which("gcloud"):
        theirs["tar+gcloud"] = run(google, "gcloud", str(tmp_path / "flat.raw"), str(folder))
    else:
        say("not compared: gcloud, because it is not on the PATH")
    say(f"allocated  {allocated_bytes / MIB:12.0f} MiB of {SIZE_BYTES / MIB:.0f} MiB")
    for title, figures in {"segments": segments, "stream": stream, **theirs}.items():
        show(title, figures)
        if title in theirs:
            tell_ratio(title, figures, segments)
    show("1 % anew", delta)
    say(
        f"           {delta['sent_bytes'] / segments['sent_bytes']:.2%} of the first upload's bytes"
    )
    say("")
    for ours in (segments, stream):
        assert DATA_BYTES <= ours["read_bytes"] <= allocated_bytes * 1.01
        assert ours["sent_bytes"] <= allocated_bytes * TOLD
    least = min(figures["sent_bytes"] for figures in theirs.values())
    assert segments["sent_bytes"] <= least * TOLD
    assert stream["sent_bytes"] <= least * TOLD
    assert delta["sent_bytes"] <= DATA_BYTES * 0.012
    assert sampled_blocks_are_equal(google, samba, segments["image"])
