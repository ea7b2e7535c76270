"""A stream-optimized VMDK from an HTTPS server into a VHDX on a share, without a temporary file, in
a process of its own: run by `test_stream_to_share`.

Arguments: ``L1`` or ``L3`` (how far it is read back), port and thumbprint of the server, location
of the share's folder, file name. User and password come from the environment. Prints one JSON
object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.formats.vmdk_stream import VmdkStream
from imageport.hypervisors.http_stream import ResponseStream, ask
from imageport.hypervisors.tls_trust import TlsTrust, TrustedConnection
from imageport.state.store import StateStore
from imageport.storage.locate import credentials_from_environment, open_folder
from imageport.storage.memory import MemoryFolder
from imageport.transfer.pipeline import TransferRequest
from imageport.transfer.receiving import receive
from imageport.transfer.verify import VerifyLevel


def peak_mib() -> float:
    """The most memory this program held; ru_maxrss starts with what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    level, port, thumbprint, location, name = sys.argv[1:]
    connection = TrustedConnection("127.0.0.1", int(port), TlsTrust(thumbprint))
    started, cpu = time.monotonic(), time.process_time()
    response = ask(connection, "GET", "/disk.vmdk", {}, server="127.0.0.1")
    wire = ResponseStream(connection, response, "https://127.0.0.1/disk.vmdk")
    journals = StateStore(MemoryFolder()).journals
    with open_folder(location, credentials_from_environment()) as folder:
        target = VhdxFileTarget(folder, name)
        request = TransferRequest(journals.open("bench"), "bench", verify=VerifyLevel(level))
        with VmdkStream(wire) as stream:
            result = receive(stream, target, request, content_key="bench")
        target.close()
    wire.close()
    found = {
        "received_bytes": wire.received_bytes,
        "sent_bytes": result.stats.bytes_sent,
        "verified": result.verified,
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
