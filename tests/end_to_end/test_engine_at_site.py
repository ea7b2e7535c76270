"""The engine at the site through the laboratory: composed beside the source, uploaded, booted.

One story in order: each test uses what the ones before it made.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.contract import EngineReport
from imageport.model import BLOCK_BYTES
from imageport.sandbox.sample.build import build_sample
from imageport.sandbox.sample.recipe import Variant
from imageport.workflow.compose_at_site import SiteComposing, compose_and_upload
from imageport.workflow.facts import source_facts
from imageport.workflow.prepare import prepare
from imageport.workflow.upload import stats_of
from tests.end_to_end.laboratory import Laboratory, open_laboratory

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]

STORY: dict[str, Any] = {}
"""What one chapter leaves for the next."""


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    def sample(path: Path) -> None:
        build_sample(path, Variant.SMALL)

    with open_laboratory(tmp_path_factory.mktemp("site"), sample) as opened:
        yield opened


def composing(laboratory: Laboratory) -> SiteComposing:
    key = source_facts(laboratory.store("source-store"), "gold").source_key
    return SiteComposing(key, laboratory.choices(), laboratory.payload())


def source_digest(laboratory: Laboratory) -> str:
    with (laboratory.share("source-store") / "gold.vhdx").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_vdisk_on_a_share_is_composed_without_a_copy_and_uploaded(
    laboratory: Laboratory,
) -> None:
    before = source_digest(laboratory)
    uploaded = compose_and_upload(
        laboratory.place("run-1"), laboratory.store("source-store"), "gold", composing(laboratory)
    )
    report = EngineReport.from_json(uploaded.details["composed"])
    assert report.ok
    assert len(report.changes) > 50
    assert stats_of(uploaded).bytes_sent > 0
    assert source_digest(laboratory) == before
    STORY["uploaded"] = uploaded


def test_in_the_cloud_it_only_boots_and_passes_its_verdict(laboratory: Laboratory) -> None:
    before = len(laboratory.events)
    prepared = prepare(
        laboratory.place("run-1"),
        STORY["uploaded"].id,
        laboratory.choices(),
        payload=laboratory.payload(),
    )
    verified = EngineReport.from_json(prepared.details["verified"])
    assert verified.first_boot["state"] == "done"
    assert all(item.passed for item in verified.verdict)
    assert prepared.details["composed"] == STORY["uploaded"].details["composed"]
    notes = [event.note for event in laboratory.events[before:]]
    assert not [note for note in notes if "running the steps" in note]


def test_an_image_composed_again_sends_a_few_blocks(laboratory: Laboratory) -> None:
    # As if the composed upload were of another content: the same is composed anew, and differs in
    # the times that NTFS notes.
    first = STORY["uploaded"]
    place = laboratory.place("run-2")
    place.state.catalogue.update(first.id, source_key="forgotten")
    again = compose_and_upload(
        place, laboratory.store("source-store"), "gold", composing(laboratory)
    )
    assert again.parent_id == first.id
    sent = stats_of(again).bytes_sent
    # Measured: 5 blocks, with the MFT records and directory indexes of what was written.
    assert 0 < sent <= 8 * BLOCK_BYTES, sent
    one, other = (EngineReport.from_json(item.details["composed"]) for item in (first, again))
    assert one.changes == other.changes
