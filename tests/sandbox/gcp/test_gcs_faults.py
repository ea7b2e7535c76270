"""What goes wrong on purpose, and what the emulator remembers of all that was asked."""

from __future__ import annotations

import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imageport.model import MIB
from tests.sandbox.gcp.gcs_lab import GcsLab, crc32c_text

DATA = bytes(range(256)) * 4096


def test_a_lost_answer_is_of_something_that_was_done(gcs: GcsLab) -> None:
    gcs.knobs.lost_answers = 1
    answer = gcs.put("object", b"x", ifGenerationMatch=0)
    assert (answer.status, answer.reason) == (503, "backendError")
    assert gcs.put("object", b"x", ifGenerationMatch=0).status == 412


def test_reading_loses_no_answer(gcs: GcsLab) -> None:
    gcs.put("object", b"x")
    gcs.knobs.lost_answers = 1
    assert gcs.read("object").status == 200
    assert gcs.put("object", b"x").status == 503


def test_half_of_the_faults_come_after_the_work(gcs: GcsLab) -> None:
    gcs.knobs.fault_rate = 1.0
    statuses = [gcs.put(f"{index}", b"x").status for index in range(40)]
    assert statuses == [503] * 40
    gcs.knobs.fault_rate = 0.0
    assert 5 < len(gcs.list().json()["items"]) < 35


def test_a_corrupted_answer_differs_in_one_byte(gcs: GcsLab) -> None:
    gcs.put("object", DATA)
    gcs.knobs.corrupted_answers = 1
    answer = gcs.read("object")
    wrong = [index for index in range(len(DATA)) if answer.body[index] != DATA[index]]
    assert len(wrong) == 1
    assert crc32c_text(DATA) in answer.headers["x-goog-hash"]
    assert gcs.read("object").body == DATA


def test_a_truncated_answer_ends_with_the_connection(gcs: GcsLab) -> None:
    gcs.put("object", DATA)
    gcs.knobs.truncated_answers = 1
    with pytest.raises(http.client.IncompleteRead):
        gcs.read("object")
    assert gcs.read("object").body == DATA


def test_too_many_requests_are_told_so(gcs: GcsLab) -> None:
    gcs.knobs.requests_per_second = 5
    answers = [gcs.stat("missing") for _ in range(20)]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) >= 10
    assert refused[0].reason == "rateLimitExceeded"


def test_a_slow_link_is_shared_by_all(gcs: GcsLab) -> None:
    gcs.knobs.mib_per_second = 8
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: gcs.put(f"{index}", DATA), range(4)))
    assert time.monotonic() - began >= 4 * len(DATA) / (8 * MIB) * 0.9


def test_one_writer_of_many_makes_the_object(gcs: GcsLab) -> None:
    barrier = threading.Barrier(8)

    def write(index: int) -> int:
        barrier.wait()
        return gcs.put("object", f"{index}".encode() * 1000, ifGenerationMatch=0).status

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(write, range(8)))
    assert statuses == [200] + [412] * 7


def test_what_was_written_is_listed_at_once(gcs: GcsLab) -> None:
    def write(index: int) -> bool:
        gcs.put(f"p/{index}", b"x")
        items = gcs.list(prefix="p/").json()["items"]
        return f"p/{index}" in {item["name"] for item in items}

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write, range(40)))


def test_a_reader_keeps_what_it_opened(gcs: GcsLab) -> None:
    gcs.put("object", b"before")
    found = gcs.emulator.objects.open("object", lambda _found: None)
    assert found is not None
    with found[1] as file:
        gcs.put("object", b"after")
        assert file.read() == b"before"
    files = list((gcs.emulator.root / "objects").rglob("*.object"))
    assert len(files) == 1


def test_requests_are_counted_by_what_google_would_bill(gcs: GcsLab) -> None:
    gcs.put("object", DATA)
    gcs.put("object", DATA, ifGenerationMatch=0)
    gcs.read("object")
    gcs.stat("object")
    gcs.list()
    url = gcs.begin("resumed")
    gcs.chunk(url, f"0-{len(DATA) - 1}/*", DATA)
    gcs.chunk(url, f"*/{len(DATA)}")
    gcs.compose("joined", [{"name": "object"}])
    gcs.ask("DELETE", gcs.at("object"))
    found = gcs.emulator.calls.document()
    by_name = {name: (one["class"], one["requests"]) for name, one in found["requests"].items()}
    assert by_name == {
        "storage.objects.compose": ("A", 1),
        "storage.objects.delete": ("free", 1),
        "storage.objects.get": ("B", 2),
        "storage.objects.insert": ("A", 2),
        "storage.objects.insert.chunk": ("free", 2),
        "storage.objects.list": ("A", 1),
    }
    assert found["requests"]["storage.objects.insert.chunk"]["bytes_in"] == len(DATA)
    assert found["requests"]["storage.objects.get"]["bytes_out"] == len(DATA)
    assert found["permissions"] == [
        "storage.objects.create",
        "storage.objects.delete",
        "storage.objects.get",
        "storage.objects.list",
    ]


def test_objects_outlive_the_process_and_what_was_half_written_does_not(
    tmp_path: Path, gcp_keys: Path
) -> None:
    lab = GcsLab(tmp_path / "gcp", gcp_keys)
    try:
        for name in ("a", "b", "c"):
            lab.put_related({"name": name, "metadata": {"name": name}}, name.encode())
        lab.put("a", b"again")
        lab.ask("DELETE", lab.at("b"))
        generation = lab.stat("a").json()["generation"]
        lab.emulator.objects.new_part().write_bytes(b"half")
        with (tmp_path / "gcp" / "objects" / "journal.jsonl").open("ab") as journal:
            journal.write(b'{"put": {"name": "torn')
    finally:
        lab.close()
    lab = GcsLab(tmp_path / "gcp", gcp_keys)
    try:
        items = lab.list().json()["items"]
        assert [item["name"] for item in items] == ["a", "c"]
        assert lab.read("a").body == b"again"
        assert lab.stat("c").json()["metadata"] == {"name": "c"}
        assert lab.stat("a").json()["generation"] == generation
        assert int(lab.put("d", b"x").json()["generation"]) > int(generation)
        files = sorted((tmp_path / "gcp" / "objects").rglob("*.*t"))
        assert len(files) == 3
    finally:
        lab.close()
