"""The golden checkpoint, as published and converted, and what its logits must be."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from qwen_openai.models.qwen1 import convert
from tests.models.conftest import Told


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    return shared / "golden/qwen1"


@pytest.fixture(scope="session")
def raw(golden: Path) -> Path:
    """A Qwen-1 directory with random weights, whose logits are known."""
    return golden / "checkpoint"


@pytest.fixture(scope="session")
def converted(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted") / "qwen-1"
    convert(raw, target, Told())
    return target


Rows = Callable[[str], list[dict[str, list[int]]]]


@pytest.fixture(scope="session")
def rows(golden: Path) -> Rows:
    def read(name: str) -> list[dict[str, list[int]]]:
        lines = (golden / name).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    return read


def worst_logit(model: PreTrainedModel, rows: list[dict[str, list[int]]]) -> float:
    """The largest difference from the golden logits of the last positions."""
    worst = 0.0
    with torch.inference_mode():
        for row in rows:
            logits = model(torch.tensor([row["ids"]])).logits[0, -1]
            for kind in ("top", "probe"):
                there = torch.tensor(row[f"{kind}_logits"])
                worst = max(worst, float((logits[row[f"{kind}_ids"]] - there).abs().max()))
    return worst
