"""What even random weights keep, loaded and run for true."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.models.checkpoint import read_checkpoint
from tests.engines.contract import BareContract
from tests.live import make_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(qwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Qwen2 with room for a story told in bytes."""
    copy = tmp_path_factory.mktemp("roomy") / "Qwen2-Tiny"
    shutil.copytree(qwen2_folder, copy)
    config = json.loads((copy / "config.json").read_bytes())
    config["max_position_embeddings"] = 2048
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    return copy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder: Path) -> AsyncIterator[Engine]:
    engine = create_engine(make_settings(engine="qwen_chat"), read_checkpoint(folder))
    await engine.start()
    yield engine
    await engine.aclose()


class TestContract(BareContract):
    @pytest.fixture
    def unstarted(self, folder: Path) -> Engine:
        return create_engine(make_settings(engine="qwen_chat"), read_checkpoint(folder))
