"""What the second upload of an image costs on every cloud, in one table; docs/clouds.md has it.

``.venv/bin/pytest -s -m slow tests/end_to_end/test_delta_table.py`` prints it anew. Bytes and
requests are counted on the wire of this process, dollars are the price tables' own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from urllib3.connectionpool import HTTPConnectionPool

from imageport.clouds.aws import prices as aws
from imageport.clouds.azure import prices as azure
from imageport.clouds.gcp import prices as gcp
from imageport.model import BLOCK_BYTES, MIB, TransferStats
from imageport.workflow.upload import stats_of
from tests.end_to_end.conftest import run
from tests.end_to_end.lab_clouds import LAB_CLOUDS
from tests.end_to_end.laboratory import open_laboratory
from tests.end_to_end.test_delta_upload import make_disk, uploaded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
DISK_MIB, DATA_MIB = 192, 100
CHANGED = (3 * MIB, 55 * MIB)
"""Where half a MiB changes: two blocks of 200, one per cent of the data."""
DATA_BYTES = DATA_MIB * MIB + 2 * BLOCK_BYTES
"""Not zero: the random part, and both partition tables. AWS is sent written zeros as well."""
MOST_SENT = 0.012
"""Of the data, where one per cent of it changed."""


class Asked(NamedTuple):
    """One request of this process."""

    method: str
    path: str
    query: str


class Row(NamedTuple):
    """One cloud's second upload."""

    cloud: str
    stats: TransferStats
    requests: int
    billed: str
    usd: float


@contextmanager
def recorded_requests() -> Iterator[list[Asked]]:
    """Record every HTTP request of this process: all three clients use urllib3."""
    asked: list[Asked] = []
    send: Any = HTTPConnectionPool.urlopen

    def urlopen(pool: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        parts = urlsplit(url)
        asked.append(Asked(method, parts.path, parts.query))
        return send(pool, method, url, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTPConnectionPool, "urlopen", urlopen)
        yield asked


def aws_bill(asked: list[Asked], _stats: TransferStats) -> tuple[str, float]:
    puts = sum(1 for item in asked if item.method == "PUT" and "/blocks/" in item.path)
    gets = sum(1 for item in asked if item.method == "GET" and "/blocks/" in item.path)
    lists = sum(
        1 for item in asked if item.method == "GET" and item.path.endswith(("blocks", "blocks/"))
    )
    usd = puts * aws.USD_PER_BLOCK_PUT + gets * aws.USD_PER_BLOCK_GET
    return f"{puts} puts, {gets} gets, {lists} lists", usd + lists * aws.USD_PER_BLOCK_LIST


def azure_bill(asked: list[Asked], _stats: TransferStats) -> tuple[str, float]:
    pages = [item for item in asked if "md-" in item.path]
    hour = azure.disk_usd_per_month("Standard_LRS", DISK_MIB * MIB) / azure.HOURS_PER_MONTH
    usd = len(pages) * azure.USD_PER_OPERATION + hour
    return f"{len(pages)} page operations, 1 h of the upload disk", usd


def gcp_bill(requests: dict[str, dict[str, Any]]) -> tuple[str, float]:
    count: Counter[str] = Counter()
    for item in requests.values():
        count[item["class"]] += item["requests"]
    usd = count["A"] * gcp.USD_PER_CLASS_A + count["B"] * gcp.USD_PER_CLASS_B
    return f"{count['A']} of class A, {count['B']} of class B", usd


BILLS: dict[str, Callable[[list[Asked], TransferStats], tuple[str, float]]] = {
    "aws": aws_bill,
    "azure": azure_bill,
}


def second_upload(root: Path, cloud: str) -> Row:
    """Upload an image, change one per cent of it, upload it again."""
    with open_laboratory(
        root, lambda path: make_disk(path, DISK_MIB, DATA_MIB), cloud
    ) as laboratory:
        assert stats_of(uploaded(laboratory, "first")).bytes_sent >= DATA_BYTES
        source = laboratory.share("source-store") / "gold.vhdx"
        for offset in CHANGED:
            run("qemu-io", "-f", "vhdx", "-c", f"write -q -P 77 {offset} {BLOCK_BYTES}", source)
        if cloud == "gcp":
            laboratory.service.forget_calls()
        with recorded_requests() as asked:
            stats = stats_of(uploaded(laboratory, "second"))
        if cloud == "gcp":
            billed, usd = gcp_bill(laboratory.service.requests())
        else:
            billed, usd = BILLS[cloud](asked, stats)
        return Row(cloud, stats, len(asked), billed, usd)


def test_one_table_of_what_a_changed_image_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "| cloud | data | changed | sent | of the data | requests | billed | USD |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cloud in sorted(LAB_CLOUDS):
        row = second_upload(tmp_path / cloud, cloud)
        changed, share = len(CHANGED) * BLOCK_BYTES, row.stats.bytes_sent / DATA_BYTES
        assert 0 < share <= MOST_SENT, row
        lines.append(
            f"| {cloud} | {DATA_BYTES / MIB:.1f} MiB | {changed / MIB:.1f} MiB | "
            f"{row.stats.bytes_sent / MIB:.1f} MiB | {share:.2%} | {row.requests} | {row.billed} | "
            f"{row.usd:.5f} |"
        )
    with capsys.disabled():
        print("\n" + "\n".join(lines))  # noqa: T201 - the table is what the test is for
