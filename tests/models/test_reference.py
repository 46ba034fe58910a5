"""What a user writes for a model: a name, a ModelScope id, or a path."""

from pathlib import Path

import pytest

from qwen_openai.errors import StartupError
from qwen_openai.models.catalogue import CATALOGUE
from qwen_openai.models.reference import CatalogueRef, PathRef, RepositoryRef, parse


@pytest.mark.parametrize(
    ("model", "revision", "expected"),
    [
        ("Qwen/Qwen-7B-Chat", None, RepositoryRef("Qwen/Qwen-7B-Chat", None, None)),
        ("Qwen/Qwen-7B-Chat", "v1.1.4", RepositoryRef("Qwen/Qwen-7B-Chat", None, "v1.1.4")),
        ("Qwen/Qwen-7B-Chat@v1.1.4", None, RepositoryRef("Qwen/Qwen-7B-Chat", None, "v1.1.4")),
        ("Qwen/Qwen-7B-Chat@v1", "v1", RepositoryRef("Qwen/Qwen-7B-Chat", None, "v1")),
        ("a/b/c.gguf", None, RepositoryRef("a/b", "c.gguf", None)),
        ("a/b/sub/c.gguf@x/y", None, RepositoryRef("a/b", "sub/c.gguf", "x/y")),
    ],
)
def test_a_modelscope_id(model: str, revision: str | None, expected: RepositoryRef) -> None:
    ref = parse(model, CATALOGUE, revision)
    assert ref == expected
    if revision is None:
        assert expected.name == model


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_a_catalogue_name(entry: object) -> None:
    assert isinstance(entry, type(CATALOGUE[0]))
    assert parse(entry.name, CATALOGUE) == CatalogueRef(entry)
    assert parse(entry.name.upper(), CATALOGUE) == CatalogueRef(entry)


def test_a_path_that_exists_comes_before_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse("org/name", CATALOGUE) == PathRef(tmp_path / "org" / "name")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("~/org", CATALOGUE) == PathRef(tmp_path / "org")


@pytest.mark.parametrize(
    "model", ["./no.gguf", "/no/such", "~/no/such", "no.gguf", "folder/no.gguf", "../x"]
)
def test_a_path_to_nothing(model: str) -> None:
    with pytest.raises(StartupError, match="There is no file or folder"):
        parse(model, CATALOGUE)


@pytest.mark.parametrize(
    "model", ["", "qwen", "a/../b", "a/b/../c", "a b/c", "a/b@", "a/.b", "http://x/y", "a/b@../c"]
)
def test_what_names_nothing(model: str) -> None:
    with pytest.raises(StartupError, match="No model is called") as caught:
        parse(model, CATALOGUE)
    assert "qwen-openai models" in caught.value.fix


@pytest.mark.parametrize("revision", ["../up", "", "-x", "a b"])
def test_a_revision_that_cannot_be(revision: str) -> None:
    with pytest.raises(StartupError, match="cannot be a revision"):
        parse("a/b", CATALOGUE, revision)


def test_two_revisions_that_differ() -> None:
    with pytest.raises(StartupError, match="Two revisions"):
        parse("a/b@v1", CATALOGUE, "v2")


@pytest.mark.parametrize("model", [CATALOGUE[0].name, "."])
def test_no_revision_of_what_has_none(model: str) -> None:
    with pytest.raises(StartupError, match="has no revisions"):
        parse(model, CATALOGUE, "v1")
