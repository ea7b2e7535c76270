"""Every block passes Prefect's own standard suite, and a few rules of ours."""

from pathlib import Path

import pytest
import yaml
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite

from blocks import BLOCKS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
class TestBlocks(BlockStandardTestSuite):
    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block

    @pytest.mark.skip(reason="the suite downloads the logo, and tests reach no network")
    def test_has_a_valid_image(self, block: type[Block]) -> None: ...


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_a_block_type_bears_the_projects_name(block: type[Block]) -> None:
    assert block.get_block_type_slug().startswith("imageport-")
    assert "(imageport)" in block.get_block_type_name()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_the_form_of_a_block_labels_and_describes_every_field(block: type[Block]) -> None:
    for name, field in block.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        if Block.annotation_refers_to_block_class(field.annotation):
            assert field.title, f"{name} would be labelled 'Field'"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_the_schema_lets_a_deployment_refer_to_a_saved_block(block: type[Block]) -> None:
    # The server checks parameters before it resolves references.
    assert block.model_json_schema().get("additionalProperties", True) is True


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_no_block_nests_a_choice_of_blocks(block: type[Block]) -> None:
    # Prefect would load the wrong class and show the secrets of the right one.
    schema = block.model_json_schema()
    for name, reference in schema["block_schema_references"].items():
        assert isinstance(reference, dict), name


def test_prefect_yaml_names_blocks_by_types_that_exist() -> None:
    text = (ROOT / "prefect.yaml").read_text()
    slugs = {block.get_block_type_slug() for block in BLOCKS}
    for reference in yaml.safe_load(text)["definitions"]["blocks"].values():
        assert reference["$ref"]["block_document_slug"].partition("/")[0] in slugs
