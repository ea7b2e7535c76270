"""The bucket: in what words Google refuses. Costs less than 0.01 USD."""

from __future__ import annotations

import os

import pytest

from imageport.clouds.gcp.downscoped_token import creating_token
from imageport.clouds.gcp.objects import crc32c_of
from imageport.errors import CloudError
from tests.real.conftest import Observed
from tests.real.probes import probes
from tests.real.real_gcp import RealGcp

CHUNK = 256 * 1024


@probes("gcp-create-only-token")
def test_a_restricted_token_creates_and_does_nothing_else(gcp: RealGcp, observed: Observed) -> None:
    folder = f"{gcp.folder}out/"
    token = creating_token(gcp.account, folder).value
    gcp.objects.put(f"{folder}there", b"theirs")

    def put(name: str, **query: object) -> int:
        fields = {"uploadType": "media", "name": name, **query}
        return gcp.ask_storage("POST", "upload", b"ours", token, **fields).status_code

    assert put(f"{folder}new", ifGenerationMatch=0) == 200
    assert put(f"{gcp.folder}elsewhere") == 403
    assert put(f"{folder}there") == 403
    assert gcp.ask_storage("GET", f"{folder}there", token=token, alt="media").status_code == 403
    assert gcp.ask_storage("DELETE", f"{folder}there", token=token).status_code == 403
    told = put(f"{folder}there", ifGenerationMatch=0)
    observed(f"who may only create, and asks that nothing be there, is told {told}")
    assert told in {403, 412}
    assert gcp.objects.get(f"{folder}there") == b"theirs"


@probes("gcp-join-refusals")
def test_a_join_of_what_is_gone_or_replaced_is_refused(gcp: RealGcp, observed: Observed) -> None:
    folder, objects = gcp.temporary, gcp.objects
    first, second = objects.put(f"{folder}1", b"first "), objects.put(f"{folder}2", b"second")
    parts = [(first.key, first.generation), (second.key, second.generation)]
    whole = objects.compose(f"{folder}whole", parts, generation=0)
    assert (whole.size_bytes, whole.crc32c) == (12, crc32c_of(b"first second"))
    told = []
    for refused, generation in (
        (parts, 0),
        ([parts[0], (second.key, second.generation + 1)], whole.generation),
        ([parts[0], (f"{folder}none", 1)], whole.generation),
    ):
        with pytest.raises(CloudError) as caught:
            objects.compose(f"{folder}whole", refused, generation=generation)
        told.append(caught.value.fields["status"])
    observed(f"a whole that is there, a part replaced, a part gone are told {told}")
    assert told == [412, 412, 404]


@probes("gcp-upload-session")
def test_a_session_skips_what_it_has_and_refuses_a_gap(gcp: RealGcp, observed: Observed) -> None:
    data = os.urandom(2 * CHUNK) + b"end"
    url = gcp.objects.open_session(f"{gcp.temporary}session")
    gap = gcp.put_session(url, f"{CHUNK}-{2 * CHUNK - 1}/*", data[CHUNK : 2 * CHUNK])
    observed(f"a gap is told {gap.status_code}")
    assert gap.status_code >= 400
    first = gcp.put_session(url, f"0-{CHUNK - 1}/*", data[:CHUNK])
    assert (first.status_code, first.headers["Range"]) == (308, f"bytes=0-{CHUNK - 1}")
    asked = gcp.put_session(url, "*/*")
    assert (asked.status_code, asked.headers["Range"]) == (308, f"bytes=0-{CHUNK - 1}")
    other = bytes(CHUNK) + data[CHUNK:]
    last = gcp.put_session(url, f"0-{len(data) - 1}/{len(data)}", other)
    assert last.status_code == 200
    assert gcp.objects.get(f"{gcp.temporary}session") == data
