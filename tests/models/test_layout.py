"""Where models lie."""

import os
from pathlib import Path

import pytest

from qwen_openai.models.catalogue import CATALOGUE
from qwen_openai.models.layout import default_home, folder_of, local_folder, partial_folder
from qwen_openai.models.reference import CatalogueRef, RepositoryRef


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({}, "linux", "/home/me/.cache/qwen-openai"),
        ({}, "darwin", "/home/me/Library/Caches/qwen-openai"),
        ({"XDG_CACHE_HOME": "/caches"}, "linux", "/caches/qwen-openai"),
        ({"XDG_CACHE_HOME": "/caches"}, "darwin", "/caches/qwen-openai"),
        ({"XDG_CACHE_HOME": "relative"}, "linux", "/home/me/.cache/qwen-openai"),
    ],
)
def test_the_default_home(
    environ: dict[str, str], platform: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert default_home(environ, platform) == Path(expected)


def test_no_two_models_share_a_folder(home: Path) -> None:
    refs: list[CatalogueRef | RepositoryRef] = [
        *(CatalogueRef(entry) for entry in CATALOGUE),
        RepositoryRef("a/b", None, None),
        RepositoryRef("a/b", None, "v1"),
        RepositoryRef("a/b", "c.gguf", None),
        RepositoryRef("a/b", "c.gguf", "v1"),
        RepositoryRef("a/b", "c/d.gguf", "v1"),
    ]
    folders = [folder_of(ref, home) for ref in refs]
    assert len(set(folders)) == len(refs)
    assert len({partial_folder(folder, home) for folder in folders}) == len(refs)


def test_a_local_files_folder_changes_with_it(home: Path, tmp_path: Path) -> None:
    weights = tmp_path / "a.gguf"
    weights.write_bytes(b"one")
    os.utime(weights, ns=(1, 1))
    first = local_folder(weights, home)
    assert local_folder(weights, home) == first
    os.utime(weights, ns=(2, 2))
    second = local_folder(weights, home)
    weights.write_bytes(b"longer")
    os.utime(weights, ns=(2, 2))
    assert len({first, second, local_folder(weights, home)}) == 3
