"""Which ModelScope is asked, and what of its answers is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.models.failure import SourceFailed
from qwen_openai.models.hub import RemoteFile, endpoint, vetted


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "https://modelscope.cn"),
        ({"MODELSCOPE_PREFER_AI_SITE": "true"}, "https://www.modelscope.ai"),
        ({"MODELSCOPE_DOMAIN": "hub.example:8443"}, "https://hub.example:8443"),
        ({"MODELSCOPE_DOMAIN": "http://127.0.0.1:8000/"}, "http://127.0.0.1:8000"),
        ({"MODELSCOPE_DOMAIN": " "}, "https://modelscope.cn"),
        ({"MODELSCOPE_ENDPOINT": "a.example", "MODELSCOPE_DOMAIN": "b"}, "https://a.example"),
    ],
)
def test_the_endpoint_is_the_one_the_client_would_choose(
    environ: dict[str, str], expected: str
) -> None:
    assert endpoint(environ) == expected


def test_a_sound_listing() -> None:
    files = [
        RemoteFile("a", 1),
        RemoteFile("b/c.gguf", 0),
        RemoteFile(".gitattributes", 1),
        RemoteFile("b/..c", 1),
    ]
    assert vetted(files) == files


@pytest.mark.parametrize(
    "files",
    [
        [RemoteFile("a", 1), RemoteFile("a", 1)],
        [RemoteFile("a", 1), RemoteFile("A", 1)],
        [RemoteFile("a", -1)],
        [RemoteFile("a\0b", 1)],
        [RemoteFile("./a", 1)],
    ],
)
def test_a_listing_at_odds_with_itself(files: list[RemoteFile]) -> None:
    with pytest.raises(SourceFailed, match="its listing"):
        vetted(files)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b.txt"]), min_size=1).map("/".join))
def test_no_path_that_passes_leads_outside(path: str) -> None:
    try:
        vetted([RemoteFile(path, 1)])
    except SourceFailed:
        return
    assert not set(path.split("/")) & {"", ".", ".."}
