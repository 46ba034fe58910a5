"""What even random weights keep, in one batch: a Qwen2 and a Qwen3, loaded and run for true."""

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from qwen_openai.engines.base import Engine
from qwen_openai.engines.factory import create_engine
from qwen_openai.models.checkpoint import read_checkpoint
from tests.engines.contract import BareContract
from tests.engines.wishes import GrammarContract
from tests.live import make_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

MakeEngine = Callable[[], Engine]


@pytest.fixture(scope="module")
def make_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> MakeEngine:
    """Make engines of a tiny model with room for a story told in bytes."""
    kind: str = request.param
    folder: Path = request.getfixturevalue(f"{kind}_folder")
    copy = tmp_path_factory.mktemp("roomy") / folder.name
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_bytes())
    config["max_position_embeddings"] = 2048
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    settings = make_settings(engine="transformers", slots=4, threads=1)
    return lambda: create_engine(settings, read_checkpoint(copy))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(make_engine: MakeEngine) -> AsyncIterator[Engine]:
    engine = make_engine()
    await engine.start()
    yield engine
    await engine.aclose()


@pytest.mark.parametrize("make_engine", ["qwen2", "qwen3"], indirect=True)
class TestContract(BareContract, GrammarContract):
    @pytest.fixture
    def unstarted(self, make_engine: MakeEngine) -> Engine:
        return make_engine()
