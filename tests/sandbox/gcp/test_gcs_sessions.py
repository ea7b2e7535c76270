"""Resumable uploads: how far they went, and what becomes of them."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.sandbox.gcp.gcs_lab import Answer, Bucket, GcsLab, crc32c_text

CHUNK = 256 * 1024
DATA = os.urandom(2 * CHUNK) + b"the end"
LAST = f"{CHUNK}-{len(DATA) - 1}/{len(DATA)}"


def first_chunk(gcs: GcsLab, url: str) -> Answer:
    answer = gcs.chunk(url, f"0-{CHUNK - 1}/*", DATA[:CHUNK])
    assert answer.status == 308
    return answer


def test_the_url_is_all_one_needs(gcs: GcsLab) -> None:
    anonymous = Bucket(gcs.endpoint, gcs.name, {})
    assert anonymous.put("object", b"x").status == 401
    url = gcs.begin("object")
    first_chunk(gcs, url)
    assert gcs.chunk(url, LAST, DATA[CHUNK:]).status == 200
    assert gcs.read("object").body == DATA


def test_a_session_says_how_far_it_is(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    answer = gcs.chunk(url, "*/*")
    assert answer.status == 308
    assert "range" not in answer.headers
    first_chunk(gcs, url)
    answer = gcs.chunk(url, f"*/{len(DATA)}")
    assert (answer.status, answer.headers["range"]) == (308, f"bytes=0-{CHUNK - 1}")


def test_a_finished_session_says_what_it_made(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    gcs.chunk(url, f"0-{len(DATA) - 1}/{len(DATA)}", DATA)
    answer = gcs.chunk(url, "*/*")
    assert answer.status == 200
    assert answer.json()["crc32c"] == crc32c_text(DATA)


def test_bytes_that_are_there_already_are_skipped(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    first_chunk(gcs, url)
    wrong = bytes(CHUNK) + DATA[CHUNK:]
    answer = gcs.chunk(url, f"0-{len(DATA) - 1}/{len(DATA)}", wrong)
    assert answer.status == 200
    assert gcs.read("object").body == DATA


def test_a_gap_is_refused(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    answer = gcs.chunk(url, LAST, DATA[CHUNK:])
    assert answer.status == 503
    assert "exceeds already uploaded size of 0 byte(s)" in answer.json()["error"]["message"]


def test_chunks_are_multiples_of_256_kib_but_the_last(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    answer = gcs.chunk(url, "0-999/*", DATA[:1000])
    assert answer.status == 400
    assert "262144" in answer.json()["error"]["message"]
    assert gcs.chunk(url, "0-999/1000", DATA[:1000]).status == 200


@pytest.mark.parametrize(
    "span", [f"0-{CHUNK}/*", f"0-{CHUNK - 1}/{CHUNK - 1}", "5-4/*", "nonsense"]
)
def test_a_range_that_is_not_the_bodys_is_refused(gcs: GcsLab, span: str) -> None:
    assert gcs.chunk(gcs.begin("object"), span, DATA[:CHUNK]).status == 400


def test_the_whole_size_may_not_change(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    gcs.chunk(url, f"0-{CHUNK - 1}/{len(DATA)}", DATA[:CHUNK])
    answer = gcs.chunk(url, f"*/{len(DATA) + 1}")
    assert answer.status == 400


@pytest.mark.parametrize("told", ["at the beginning", "with an earlier chunk", "too late"])
def test_no_more_bytes_are_taken_than_the_whole_has(gcs: GcsLab, told: str) -> None:
    headers = {"X-Upload-Content-Length": str(CHUNK)} if told == "at the beginning" else {}
    target = f"/upload/storage/v1/b/{gcs.name}/o?uploadType=resumable&name=object"
    url = gcs.ask("POST", target, b"", headers).headers["location"]
    if told == "with an earlier chunk":
        assert gcs.chunk(url, f"*/{CHUNK}").status == 308
    if told == "too late":
        first_chunk(gcs, url)
        answer = gcs.chunk(url, f"*/{CHUNK - 1}")
    else:
        answer = gcs.chunk(url, f"0-{2 * CHUNK - 1}/*", DATA[: 2 * CHUNK])
    assert (answer.status, answer.reason) == (400, "invalid")
    assert "exceeds the total size" in answer.json()["error"]["message"]
    assert gcs.stat("object").status == 404


def test_the_end_may_come_without_bytes(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    first_chunk(gcs, url)
    assert gcs.chunk(url, f"*/{CHUNK}").status == 200
    assert gcs.read("object").body == DATA[:CHUNK]


@pytest.mark.parametrize("where", ["metadata", "last chunk"])
def test_a_wrong_checksum_ends_a_session_without_an_object(gcs: GcsLab, where: str) -> None:
    wrong = crc32c_text(b"other")
    url = gcs.begin("object", {"crc32c": wrong} if where == "metadata" else None)
    headers = {} if where == "metadata" else {"X_Goog_Hash": f"crc32c={wrong}"}
    answer = gcs.chunk(url, f"0-{len(DATA) - 1}/{len(DATA)}", DATA, **headers)
    assert answer.status == 400
    assert gcs.stat("object").status == 404
    assert gcs.chunk(url, "*/*").status == 404


def test_the_precondition_holds_at_the_beginning_and_at_the_end(gcs: GcsLab) -> None:
    url = gcs.begin("object", ifGenerationMatch=0)
    first_chunk(gcs, url)
    gcs.put("object", b"other")
    assert gcs.chunk(url, LAST, DATA[CHUNK:]).status == 412
    assert gcs.read("object").body == b"other"
    target = f"/upload/storage/v1/b/{gcs.name}/o?uploadType=resumable&name=object"
    assert gcs.ask("POST", f"{target}&ifGenerationMatch=0").status == 412


def test_a_given_up_session_takes_no_more(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    first_chunk(gcs, url)
    assert gcs.ask("DELETE", url).status == 499
    assert gcs.chunk(url, LAST, DATA[CHUNK:]).status == 499
    assert gcs.stat("object").status == 404


def test_an_unknown_session_is_not_found_and_a_lost_one_is_gone(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    assert gcs.chunk(f"{url}x", "*/*").status == 404
    gcs.knobs.lost_sessions = 1
    assert gcs.chunk(url, "*/*").status == 410
    assert gcs.chunk(url, "*/*").status == 404


def test_google_may_keep_less_than_was_sent(gcs: GcsLab) -> None:
    gcs.knobs.short_persists = 1
    url = gcs.begin("object")
    answer = gcs.chunk(url, f"0-{2 * CHUNK - 1}/*", DATA[: 2 * CHUNK])
    assert (answer.status, answer.headers["range"]) == (308, f"bytes=0-{CHUNK - 1}")
    assert gcs.chunk(url, LAST, DATA[CHUNK:]).status == 200
    assert gcs.read("object").body == DATA


def test_of_a_broken_connection_whole_pieces_stay(gcs: GcsLab) -> None:
    url = gcs.begin("object")
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection.putrequest("PUT", f"{parts.path}?{parts.query}")
    connection.putheader("Content-Length", str(len(DATA)))
    connection.putheader("Content-Range", f"bytes 0-{len(DATA) - 1}/{len(DATA)}")
    connection.endheaders()
    connection.send(DATA[: CHUNK + 100])
    connection.close()
    span = f"*/{len(DATA)}"
    while "range" not in (answer := gcs.chunk(url, span)).headers:
        assert answer.status == 308
    assert answer.headers["range"] == f"bytes=0-{CHUNK - 1}"
    assert gcs.chunk(url, LAST, DATA[CHUNK:]).status == 200
    assert gcs.read("object").body == DATA


def test_a_session_outlives_the_process(tmp_path: Path, gcp_keys: Path) -> None:
    lab = GcsLab(tmp_path / "gcp", gcp_keys)
    try:
        begun = urlsplit(lab.begin("object", {"metadata": {"a": "b"}}))
        path = f"{begun.path}?{begun.query}"
        first_chunk(lab, path)
    finally:
        lab.close()
    lab = GcsLab(tmp_path / "gcp", gcp_keys)
    try:
        assert lab.chunk(path, "*/*").headers["range"] == f"bytes=0-{CHUNK - 1}"
        assert lab.chunk(path, LAST, DATA[CHUNK:]).status == 200
        assert lab.read("object").body == DATA
        assert lab.stat("object").json()["metadata"] == {"a": "b"}
    finally:
        lab.close()
