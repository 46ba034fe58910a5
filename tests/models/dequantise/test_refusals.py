"""No GGUF, however it lies, gets more than a sentence; and nothing is left of it."""

import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from gguf.constants import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from qwen_openai.errors import StartupError
from qwen_openai.models.dequantise import dequantised
from tests.models.conftest import Told
from tests.models.dequantise import as_gguf
from tests.models.dequantise.made import Tensors, files_of, left_in
from tests.models.tiny_gguf import Tensor, encode_gguf

_ODD = Tensor((32,), Kind.F32, bytes(128))


def _changed(name: str, tensor: Tensor | None) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor

    return change


def _bad_number(name: str, raw: bytes) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensor = tensors[name]
        tensors[name] = Tensor(tensor.shape, tensor.kind, tensor.data[: -len(raw)] + raw)

    return change


def _of_kind(kind: int, size: int) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        shape = tensors["blk.1.ffn_up.weight"].shape
        tensors["blk.1.ffn_up.weight"] = Tensor(shape, kind, bytes(size))

    return change


# A scale that is no number, and one that only float32 reaches.
_NO_SCALE = struct.pack("<e32b", float("nan"), *range(32))
_BIG_SCALE = struct.pack("<e32b", 60_000.0, *range(32))
_NO_BF16 = b"\x80\x7f"


def _last_block(kind: Kind, raw: bytes) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        shape = tensors["blk.1.ffn_up.weight"].shape
        tensor = as_gguf.noise(kind, shape[::-1])
        data = tensor.data[: -len(raw)] + raw
        tensors["blk.1.ffn_up.weight"] = Tensor(shape, kind, data)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_changed("blk.1.ffn_up.weight", None), "lacks 1 tensors, such as blk.1.ffn_up.weight"),
        (_changed("blk.0.attn_q.bias", _ODD), None),
        (_changed("rope_freqs.weight", _ODD), "its kind has not, such as rope_freqs.weight"),
        (_changed("blk.2.ffn_up.weight", _ODD), "its kind has not, such as blk.2.ffn_up.weight"),
        (_changed("blk.1.ffn_up.weight", _ODD), r"is of the shape \[32\], not \[64, 32\]"),
        (_changed("token_embd.weight", _ODD), "it has no matrix token_embd.weight"),
        (_of_kind(9, 64 * 36), "of ggml's type Q8_1, which the gguf package does not read"),
        (_of_kind(250, 64 * 36), "of ggml's type of the number 250"),
        (_of_kind(26, 64 * 32 * 4), "of ggml's type I32"),
        (_of_kind(12, 64 * 32), "the rows of its tensor blk.1.ffn_up.weight are not whole"),
        (_bad_number("blk.0.attn_q.bias", struct.pack("<f", float("nan"))), "blk.0.attn_q.bias"),
        (_bad_number("output_norm.weight", struct.pack("<f", float("inf"))), "output_norm.weight"),
        # Beside its twin, what a float holds but not its square.
        (_bad_number("output.weight", struct.pack("<f", 3e38)), None),
        (_last_block(Kind.Q8_0, _NO_SCALE), "what is no number, or none that F16 reaches"),
        (_last_block(Kind.Q8_0, _BIG_SCALE), "what is no number, or none that F16 reaches"),
        (_last_block(Kind.BF16, _NO_BF16), "what is no number, or none that BF16 reaches"),
    ],
)
def test_tensors_that_cannot_be_are_refused(
    change: Callable[[Tensors], None],
    reason: str | None,
    qwen2: PreTrainedModel,
    tmp_path: Path,
    home: Path,
    told: Told,
) -> None:
    tensors = as_gguf.tensors_of(qwen2)
    change(tensors)
    files = files_of(tmp_path, home, as_gguf.metadata_of("qwen2"), tensors)
    if reason is None:
        dequantised(files, home, told)
        return
    with pytest.raises(StartupError, match=reason) as caught:
        dequantised(files, home, told)
    assert str(files.weights) in caught.value.message
    assert caught.value.fix
    assert not left_in(home)
    assert not told.open


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"block_count": 3}, "it lacks 12 tensors, such as blk.2.attn_k.bias"),
        ({"block_count": 1}, "its kind has not"),
        ({"block_count": 4000}, "it states 4000 layers and has fewer tensors"),
        ({"feed_forward_length": None}, "its feed_forward_length is absent"),
        ({"attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is absent"),
        ({"attention__layer_norm_rms_epsilon": -1.0}, "layer_norm_rms_epsilon is -1.0"),
        ({"attention__value_length": 16}, "its attention.value_length is not the width of a head"),
        ({"rope__dimension_count": 4}, "its rope.dimension_count is not the width of a head"),
        ({"attention__head_count": 5}, "its embedding_length is no multiple"),
        ({"rope__scaling__type": "longrope"}, "it stretches positions by 'longrope'"),
        ({"rope__scaling__type": "yarn"}, "its rope.scaling.factor is absent"),
    ],
    ids=str,
)
def test_metadata_that_cannot_be_is_refused(
    changes: dict[str, object],
    reason: str,
    qwen2: PreTrainedModel,
    tmp_path: Path,
    home: Path,
    told: Told,
) -> None:
    metadata = as_gguf.metadata_of("qwen2", **changes)
    files = files_of(tmp_path, home, metadata, as_gguf.tensors_of(qwen2))
    with pytest.raises(StartupError, match=reason) as caught:
        dequantised(files, home, told)
    assert str(files.weights) in caught.value.message
    assert caught.value.fix
    assert not left_in(home)


def test_another_architecture_is_refused_with_the_way_to_run_it(
    qwen2: PreTrainedModel, tmp_path: Path, home: Path, told: Told
) -> None:
    files = files_of(tmp_path, home, as_gguf.metadata_of("qwen3vl"), as_gguf.tensors_of(qwen2))
    with pytest.raises(StartupError, match="of the architecture 'qwen3vl'") as caught:
        dequantised(files, home, told)
    assert "qwen2, qwen3, qwen2moe, qwen3moe" in caught.value.message
    assert caught.value.fix == "Leave --engine out: llama.cpp runs the file as it is."


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_file_gets_more_than_a_sentence(
    data: st.DataObject, qwen2: PreTrainedModel, tmp_path: Path
) -> None:
    """Bytes turned anywhere behind the vocabulary, and files cut anywhere."""
    home = tmp_path / "fuzzed"
    shutil.rmtree(home, ignore_errors=True)
    metadata = dict(as_gguf.metadata_of("qwen2"))
    # First what is read first: turned bytes are to reach further than the tokenizer.
    raw = bytearray(encode_gguf(metadata, as_gguf.tensors_of(qwen2)))
    whole = files_of(tmp_path, home, metadata, as_gguf.tensors_of(qwen2))
    tensors = raw.index(b"token_embd.weight")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(tensors, tensors + 3000) | st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | st.integers(0, len(raw)))
    whole.weights.write_bytes(raw[:cut])
    with suppress(StartupError):
        dequantised(whole, home, Told())
        return
    assert not left_in(home)
