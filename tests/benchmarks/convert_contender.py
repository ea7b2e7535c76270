"""What `imageport convert --verify none` does, in a process of its own: run by
`test_convert_to_raw`.

Arguments: source, destination. Prints one JSON object; ``seconds`` count from when the program is
loaded, as a service that converts would see it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from imageport.formats.opening import open_disk
from imageport.formats.plain_copy import copy_plainly
from imageport.formats.raw_target import RawFileTarget
from imageport.progress import silent
from imageport.storage.local import LocalFolder


def peak_mib() -> float:
    """The most memory this program held; ru_maxrss starts with what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    source, destination = (Path(word) for word in sys.argv[1:])
    folder = LocalFolder(source.parent)
    started, cpu = time.monotonic(), time.process_time()
    with open_disk(folder.open_read(source.name), folder) as disk:
        target = RawFileTarget(LocalFolder(destination.parent), destination.name)
        copied = copy_plainly(disk, target, silent)
        target.close()
    found = {
        "copied": copied,
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
