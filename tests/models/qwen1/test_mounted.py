"""A conversion to the root of a mounted disk, which no rename can replace."""

import os
from pathlib import Path

import pytest

from qwen_openai.errors import StartupError
from qwen_openai.models.qwen1 import convert
from tests.models.conftest import Told
from tests.models.qwen1 import tiny_qwen1

MOUNTED = Path("/proc")


@pytest.mark.skipif(not os.path.ismount(MOUNTED), reason="needs a place where a disk is mounted")
def test_it_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = tiny_qwen1.write(tmp_path / "source", tiny_qwen1.files())
    told = Told()
    with pytest.raises(StartupError, match="mounted") as caught:
        convert(source, MOUNTED, told)
    assert str(MOUNTED / "source") in caught.value.fix
    assert told.labels == []
