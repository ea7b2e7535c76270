"""One way of making a Google image of a disk, in a process of its own so that its memory and
CPU can be told: run by `test_gcp_upload`.

Arguments: how, endpoint, key file of the service account, and

- ``segments``, ``stream``: location of the share's folder, file name;
- ``delta``: the same and the reference of an image made before: one block in a hundred is another;
- ``client``, ``gcloud``: path of a flat image, folder for the archive.

User and password come from the environment. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import google.auth.transport.requests
from google.cloud import storage
from google.oauth2 import service_account

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.clients import GcpClients
from imageport.clouds.gcp.images import insert_raw_image, wait_ready
from imageport.clouds.gcp.names import image_id
from imageport.clouds.gcp.segment_index import index_of
from imageport.clouds.gcp.segment_target import SegmentTarget
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.gcp.streamed_archive_target import StreamedArchiveTarget
from imageport.formats.opening import open_disk
from imageport.formats.patched_disk import PatchedDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES
from imageport.sandbox.gcp.account import BUCKET, PROJECT, REGION, ZONE
from imageport.state.store import StateStore
from imageport.storage.locate import credentials_from_environment, open_folder
from imageport.storage.memory import MemoryFolder
from imageport.transfer.pipeline import TransferRequest, VerifyLevel, transfer

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.contest import DATA_BYTES
from tests.transfer.synthetic_disk import DATA, SyntheticDisk

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
ARCHIVE = "disk.tar.gz"


class Place:
    """The project, as a worker has it."""

    def __init__(self, endpoint: str, key_file: str, archive: str = "segments") -> None:
        self.settings = GcpSettings(
            PROJECT, REGION, ZONE, BUCKET, site="bench", endpoint_url=endpoint, archive=archive
        )
        self.credentials = service_account.Credentials.from_service_account_file(
            key_file, scopes=SCOPES
        )
        self.state = StateStore(MemoryFolder())
        self.clients = GcpClients(self.settings, self.credentials)
        self.account = GcpAccount(self.settings, self.clients, self.state.ledger, "bench")

    def import_archive(self, name: str) -> str:
        """Have Google make an image of the archive: what every tool ends with."""
        intent = self.account.intend("snapshot", "uploaded", name)
        image = f"imageport-bench-{name}"
        insert_raw_image(self.account, image, intent, f"gs://{BUCKET}/{name}/{ARCHIVE}")
        reference = image_id(self.settings, image)
        wait_ready(self.account, reference)
        return reference


def imageport(place: Place, how: str, disk: VirtualDisk, parent: str = "") -> dict[str, Any]:
    """What this product does."""
    target: Any = (
        StreamedArchiveTarget(place.account, how)
        if how == "stream"
        else SegmentTarget(place.account, how, parent=parent)
    )
    request = TransferRequest(
        place.state.journals.open(how),
        how,
        verify=VerifyLevel.AGGREGATE,
        parent=index_of(place.account, parent).manifest if parent else None,
    )
    result = transfer(disk, target, request)
    target.close()
    return {"image": result.reference, "read_bytes": result.stats.bytes_read}


def a_hundredth_changed(disk: VirtualDisk) -> VirtualDisk:
    """Return the disk with other data in one of a hundred blocks of the half that is full."""
    count = DATA_BYTES // BLOCK_BYTES // 100
    step = DATA_BYTES // 2 // count // BLOCK_BYTES * BLOCK_BYTES
    top = SyntheticDisk([(disk.size_bytes, DATA, 1)])
    return PatchedDisk(disk, top, [(number * step, BLOCK_BYTES) for number in range(count)])


def plain(place: Place, how: str, flat: Path, folder: Path) -> dict[str, Any]:
    """What Google's pages tell to do: tar, upload, import."""
    archive = folder / f"{how}-{ARCHIVE}"
    link = folder / "disk.raw"
    link.unlink(missing_ok=True)
    os.link(flat, link)
    argv = ["tar", "--format=oldgnu", "-Sczf", str(archive), "-C", str(folder), link.name]
    subprocess.run(argv, check=True)
    if how == "gcloud":
        _copy_with_gcloud(place, archive, folder)
    else:
        client = storage.Client(
            PROJECT, place.credentials, client_options={"api_endpoint": place.settings.endpoint_url}
        )
        client.bucket(BUCKET).blob(f"{how}/{ARCHIVE}").upload_from_filename(str(archive))
        client.close()
    archive.unlink()
    return {"image": place.import_archive(how), "read_bytes": flat.stat().st_blocks * 512}


def _copy_with_gcloud(place: Place, archive: Path, folder: Path) -> None:
    credentials: Any = place.credentials
    credentials.refresh(google.auth.transport.requests.Request())
    token = folder / "token"
    token.write_text(credentials.token)
    settings = {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{place.settings.endpoint_url}/storage/v1/",
        "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(token),
        "CLOUDSDK_CONFIG": str(folder / "gcloud"),
        "CLOUDSDK_CORE_PROJECT": PROJECT,
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
    }
    argv = ["gcloud", "storage", "cp", str(archive), f"gs://{BUCKET}/gcloud/{ARCHIVE}"]
    subprocess.run(argv, check=True, env=os.environ | settings, capture_output=True)


def peak_mib() -> float:
    """The most memory this program held, or one that it ran."""
    lines = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    how, endpoint, key_file, *rest = sys.argv[1:]
    place = Place(endpoint, key_file, "stream" if how == "stream" else "segments")
    started, cpu = time.monotonic(), cpu_seconds()
    if how in {"client", "gcloud"}:
        found = plain(place, how, Path(rest[0]), Path(rest[1]))
    else:
        with (
            open_folder(rest[0], credentials_from_environment()) as folder,
            open_disk(folder.open_read(rest[1], deny_write=True)) as disk,
        ):
            source = a_hundredth_changed(disk) if how == "delta" else disk
            found = imageport(place, how, source, rest[2] if how == "delta" else "")
    place.clients.close()
    found["seconds"] = round(time.monotonic() - started, 1)
    found["cpu_seconds"] = round(cpu_seconds() - cpu, 1)
    found["peak_mib"] = round(peak_mib())
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
