"""What an operator says of an upstream: a URL in one form, and a name that tells nobody where."""

import pytest
from pydantic import ValidationError

from qwen_openai.upstreams import Upstream, from_urls


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://10.0.0.7:8000", "http://10.0.0.7:8000/v1"),
        ("http://10.0.0.7:8000/", "http://10.0.0.7:8000/v1"),
        (" http://10.0.0.7:8000/v1/ ", "http://10.0.0.7:8000/v1"),
        ("https://host/deep/api/", "https://host/deep/api"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_a_url_has_one_form(given: str, taken: str) -> None:
    assert Upstream(url=given).url == taken


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:8000",
        "ftp://host",
        "http://",
        "http://me:secret@host",
        "http://h/?a=1",
        "http://h/#a",
    ],
)
def test_a_url_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Upstream(url=url)
    assert "secret" not in str(refused.value)


def test_without_a_name_it_is_called_the_same_every_time_and_not_by_its_address() -> None:
    first, again = Upstream(url="http://10.0.0.7:8000"), Upstream(url="http://10.0.0.7:8000/v1")
    other = Upstream(url="http://10.0.0.8:8000")
    assert first.label == again.label != other.label
    assert first.label.startswith("upstream-")
    assert "10.0.0.7" not in first.label
    assert first.place == "10.0.0.7:8000"
    assert Upstream(url="http://10.0.0.7:8000", name="left").label == "left"


def test_a_key_comes_from_the_value_or_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-there")
    assert Upstream(url="http://h").key() is None
    assert Upstream(url="http://h", api_key="sk-here").key() == "sk-here"
    assert Upstream(url="http://h", api_key_env="UPSTREAM_KEY").key() == "sk-there"


def test_urls_and_names_have_short_forms() -> None:
    assert from_urls("http://a, http://b,") == [{"url": "http://a"}, {"url": "http://b"}]
    assert from_urls(()) == ()
    listed = Upstream.model_validate({"url": "http://h", "models": ["m", "n"]})
    assert dict(listed.models) == {"m": "m", "n": "n"}
