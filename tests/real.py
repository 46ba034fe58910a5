"""The embedded model for tests that need it; it is found where `qwen-openai pull` puts it."""

import os
from pathlib import Path

import pytest

from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.models.layout import default_home
from qwen_openai.models.store import ModelFiles, locate
from tests.live import make_settings

MODEL = "qwen2.5-coder-0.5b"


def real_files() -> ModelFiles:
    """The model on disk; skips the test when it is not there, fails it under CI."""
    home = os.environ.get("QWEN_OPENAI_HOME")
    files = locate(MODEL, home=Path(home) if home else default_home())
    if files is None:
        reason = f"the model {MODEL} is not on disk: run `qwen-openai pull {MODEL}`"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    assert isinstance(files, ModelFiles)
    return files


def real_engine(**values: object) -> Engine:
    """An engine on the embedded model, not yet started; small unless settings say otherwise."""
    small = {"context": 2048, "slots": 2, "prompt_cache": False}
    return create_engine(make_settings(**{**small, **values}), real_files())
