"""How many answers of which length are chosen for whom, and what is said when they do not fit."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cache import PagedAttentionMemoryHandler

from qwen_openai.engines.torch_model.devices import CPU, Room
from qwen_openai.engines.transformers.needs import Needs
from qwen_openai.engines.transformers.sizing import Sizing, Wanted, choose, page_size
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import Checkpoint, Qwen1Facts

GIB = 2**30
WORDS = 151_936

# config.json of what is published; Qwen-1 states twice the width of its MLP.
SHAPES: dict[str, dict[str, int | bool]] = {
    "Qwen-7B-Chat": {
        "hidden_size": 4096,
        "intermediate_size": 22_016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": WORDS,
    },
    "Qwen2.5-7B": {
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
    },
    "Qwen2.5-0.5B": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": WORDS,
        "tie_word_embeddings": True,
    },
    "Qwen3-30B-A3B": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": WORDS,
    },
}
# Bytes of the weights in bfloat16, and numbers in the cache for a token.
FACTS = {
    "Qwen-7B-Chat": (15_442_649_088, 2 * 32 * 32 * 128),
    "Qwen2.5-7B": (15_231_233_024, 2 * 28 * 4 * 128),
    "Qwen2.5-0.5B": (988_065_664, 2 * 24 * 2 * 64),
    "Qwen3-30B-A3B": (61_064_245_248, 2 * 48 * 4 * 128),
}

Make = Callable[[str], Checkpoint]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    made: dict[str, Checkpoint] = {}

    def write(name: str) -> Checkpoint:
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.json").write_text(json.dumps(SHAPES[name]))
        weights, kept = FACTS[name]
        old = name == "Qwen-7B-Chat"
        return Checkpoint(
            name=name,
            folder=folder,
            raw=old,
            qwen1=Qwen1Facts(8192, use_dynamic_ntk=True, use_logn_attn=True) if old else None,
            context_length=32_768,
            kv_values_per_token=kept,
            weight_bytes=weights,
            dtype="bfloat16",
        )

    return lambda name: made.get(name) or made.setdefault(name, write(name))


def card(gibibytes: float) -> Room:
    return Room("cuda:0 Card", int(gibibytes * GIB))


def machine(gigabytes: float) -> Room:
    return Room(CPU, int(gigabytes * 1e9))


BF16, FP32 = Wanted("bfloat16"), Wanted("float32")


@pytest.mark.parametrize(
    ("name", "room", "wanted", "context", "slots", "sentence"),
    [
        # Cards sold with 24 GB: 22.5 GiB (A10, L4), 24 GiB (3090, 4090).
        (
            "Qwen-7B-Chat",
            card(22.5),
            BF16,
            8192,
            14,
            "weights 15.4 GB, cache 7.5 GB: 14,208 tokens, about 3 users at 4k",
        ),
        (
            "Qwen-7B-Chat",
            card(24),
            BF16,
            8192,
            16,
            "weights 15.4 GB, cache 9.0 GB: 17,120 tokens, about 4 users at 4k",
        ),
        (
            "Qwen-7B-Chat",
            card(17),
            BF16,
            3584,
            3,
            "weights 15.4 GB, cache 1.9 GB: 3,648 tokens, about 1 user at 3,584",
        ),
        (
            "Qwen2.5-7B",
            card(22.5),
            BF16,
            32_768,
            107,
            "weights 15.2 GB, cache 5.7 GB: 98,528 tokens, about 24 users at 4k",
        ),
        (
            "Qwen2.5-7B",
            card(80),
            BF16,
            32_768,
            128,
            "weights 15.2 GB, cache 52.6 GB: 916,544 tokens, about 223 users at 4k",
        ),
        # Keys and values are neither copied for each head, nor is there a mask.
        (
            "Qwen2.5-7B",
            card(24),
            Wanted("bfloat16", flash=True),
            32_768,
            128,
            "weights 15.2 GB, cache 8.6 GB: 148,736 tokens, about 36 users at 4k",
        ),
        # A laptop: the cache takes half of what is left, or what the slots usually need.
        (
            "Qwen2.5-0.5B",
            machine(4),
            FP32,
            11_776,
            8,
            "weights 2.5 GB, cache 0.3 GB: 11,872 tokens, about 2 users at 4k",
        ),
        (
            "Qwen2.5-0.5B",
            machine(22),
            FP32,
            32_768,
            8,
            "weights 2.5 GB, cache 0.8 GB: 32,768 tokens, about 8 users at 4k",
        ),
        (
            "Qwen2.5-0.5B",
            machine(4),
            BF16,
            32_768,
            8,
            "weights 1.3 GB, cache 0.4 GB: 32,768 tokens, about 8 users at 4k",
        ),
    ],
)
def test_unasked(
    make: Make,
    name: str,
    room: Room,
    wanted: Wanted,
    context: int,
    slots: int,
    sentence: str,
) -> None:
    sizing = choose(make(name), room, wanted)
    assert (sizing.context, sizing.slots, sizing.sentence()) == (context, slots, sentence)
    assert sizing.batch_tokens == slots + (512 if room.is_card else 128)


def test_what_is_asked_for_is_taken(make: Make) -> None:
    wanted = Wanted("bfloat16", context=4096, slots=3, batch_tokens=64)
    sizing = choose(make("Qwen2.5-7B"), card(22.5), wanted)
    assert (sizing.context, sizing.slots, sizing.batch_tokens) == (4096, 3, 67)
    # Twice what the answers can fill: prompts stay for the next that begins alike.
    assert sizing.cache_tokens == 2 * 3 * 4096
    on_cpu = choose(make("Qwen2.5-0.5B"), machine(22), Wanted("float32", context=300, slots=2))
    assert (on_cpu.context, on_cpu.cache_tokens) == (300, 608)
    assert on_cpu.sentence().endswith("608 tokens, about 2 users at 300")


def test_an_asked_for_context_leaves_fewer_slots(make: Make) -> None:
    wanted = Wanted("float32", context=20_000)
    sizing = choose(make("Qwen2.5-0.5B"), machine(4), wanted)
    assert sizing.cache_tokens >= sizing.context == 20_000
    assert 1 <= sizing.slots <= 8


@pytest.mark.parametrize(
    ("name", "room", "wanted", "message", "fix"),
    [
        (
            "Qwen-7B-Chat",
            card(12),
            BF16,
            "Qwen-7B-Chat needs about 16.4 GB in bfloat16; 12.9 GB are free on cuda:0 Card.",
            "Take a smaller model, or give --engine qwen_chat, which spreads it over all cards and"
            " the machine's memory and makes one answer at a time.",
        ),
        (
            "Qwen2.5-0.5B",
            machine(2.5),
            FP32,
            "Qwen2.5-0.5B needs about 3.2 GB in float32; 2.5 GB are free on the CPU.",
            "Give --dtype bfloat16, take a smaller model, or free memory.",
        ),
        (
            "Qwen2.5-0.5B",
            machine(4),
            Wanted("float32", slots=256),
            "256 answers of Qwen2.5-0.5B at once need about 5.1 GB; 4.0 GB are free on the CPU.",
            "Give --slots 112 or less.",
        ),
        (
            "Qwen2.5-7B",
            card(16),
            Wanted("bfloat16", context=30_000),
            "30,000 tokens of Qwen2.5-7B in bfloat16 need about 18.2 GB; 17.2 GB are free on"
            " cuda:0 Card.",
            "Give --context 16128 or less.",
        ),
        (
            "Qwen2.5-7B",
            card(80),
            Wanted("bfloat16", context=40_000),
            "Qwen2.5-7B can hold 32,768 tokens; 40,000 were asked for.",
            "Give --context 32768 or less.",
        ),
        (
            "Qwen-7B-Chat",
            card(80),
            Wanted("bfloat16", context=16_384),
            "Qwen-7B-Chat was trained for 8,192 tokens, and 16,384 were asked for; beyond, a Qwen-1"
            " changes its attention for each answer, which answers in one batch cannot.",
            "Give --context 8192 or less, or --engine qwen_chat, which makes one answer at a time.",
        ),
        (
            "Qwen-7B-Chat",
            card(80),
            Wanted("bfloat16", context=40_000),
            "Qwen-7B-Chat can hold 8,192 tokens; 40,000 were asked for.",
            "Give --context 8192 or less.",
        ),
    ],
)
def test_what_cannot_be(
    make: Make, name: str, room: Room, wanted: Wanted, message: str, fix: str
) -> None:
    with pytest.raises(StartupError) as caught:
        choose(make(name), room, wanted)
    assert (caught.value.message, caught.value.fix) == (message, fix)


@pytest.mark.parametrize("room", [card(3.5), machine(4)], ids=["card", "machine"])
def test_what_a_refusal_names_does_fit(make: Make, room: Room) -> None:
    model = make("Qwen2.5-0.5B")
    with pytest.raises(StartupError, match="tokens of") as caught:
        choose(model, room, Wanted("float32", context=32_768, slots=32))
    context = int(str(caught.value.fix).split()[2])
    assert choose(model, room, Wanted("float32", context=context, slots=32)).context == context
    with pytest.raises(StartupError, match="answers of") as caught:
        choose(model, room, Wanted("float32", slots=256))
    slots = int(str(caught.value.fix).split()[2])
    assert choose(model, room, Wanted("float32", slots=slots)).slots == slots


def test_a_model_of_very_few_tokens(make: Make) -> None:
    short = replace(make("Qwen2.5-0.5B"), context_length=64)
    sizing = choose(short, machine(22), FP32)
    assert (sizing.context, sizing.cache_tokens) == (64, 512)


def test_pages_are_large_where_kernels_read_them() -> None:
    assert (page_size(flash=True), page_size(flash=False)) == (256, 32)


@given(
    name=st.sampled_from(list(SHAPES)),
    memory=st.integers(0, 160 * GIB),
    on_card=st.booleans(),
    wanted=st.builds(
        Wanted,
        dtype=st.sampled_from(["bfloat16", "float32"]),
        context=st.none() | st.integers(1, 8192),
        slots=st.none() | st.integers(1, 256),
        batch_tokens=st.none() | st.integers(16, 2048),
        flash=st.booleans(),
    ),
)
def test_what_is_chosen_fits(
    make: Make, name: str, memory: int, on_card: bool, wanted: Wanted
) -> None:
    model = make(name)
    try:
        sizing = choose(model, Room("cuda:0" if on_card else CPU, memory), wanted)
    except StartupError:
        return
    assert sizing.context == (wanted.context or sizing.context)
    assert sizing.slots == (wanted.slots or sizing.slots)
    assert 1 <= sizing.context <= sizing.cache_tokens
    assert sizing.page_size == page_size(wanted.flash)
    assert needed(model, sizing, wanted, on_card=on_card) <= memory


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("flash", [False, True])
def test_transformers_reckons_with_no_more(
    make: Make, name: str, dtype: str, *, flash: bool
) -> None:
    """It refuses to build a cache that by its own sum does not fit."""
    model, wanted = make(name), Wanted(dtype, slots=32, flash=flash)
    sizing = choose(model, card(140), wanted)
    theirs = reckoned(name, sizing, wanted)
    ours = needed(model, sizing, wanted, on_card=True)
    weights = FACTS[name][0] * (2 if dtype == "float32" else 1)
    assert theirs <= ours - weights
    # And ours is not far off: the sampler, the layers and the margin are ours alone.
    rows = 32 * SHAPES[name]["vocab_size"] * 48
    assert ours - weights - theirs <= 0.2 * theirs + rows + 900 * 2**20


def needed(model: Checkpoint, sizing: Sizing, wanted: Wanted, *, on_card: bool) -> int:
    needs = Needs.of(model, 2 if wanted.dtype == "bfloat16" else 4, on_card, wanted.flash)
    fixed = needs.fixed(sizing.slots, sizing.batch_tokens, sizing.page_size)
    return fixed + sizing.cache_tokens * needs.token(sizing.batch_tokens)


def reckoned(name: str, sizing: Sizing, wanted: Wanted) -> int:
    """What transformers says that this cache and its batches take."""
    config = AutoConfig.for_model("qwen3_moe" if "A3B" in name else "qwen2", **_stated(name))
    config._attn_implementation = "flash_attention_2" if wanted.flash else "sdpa"
    pages = ContinuousBatchingConfig(
        page_size=sizing.page_size,
        num_blocks=sizing.pages,
        max_batch_tokens=sizing.batch_tokens,
        max_requests_per_batch=sizing.slots,
        max_memory_percent=1.0,
        max_blocks_per_request=-(-sizing.context // 256) if wanted.flash else 0,
        use_async_batching=False,
    )
    width = 2 if wanted.dtype == "bfloat16" else 4
    page = FACTS[name][1] * width * sizing.page_size
    handler = PagedAttentionMemoryHandler(
        config=config,
        cb_config=pages,
        dtype=getattr(torch, wanted.dtype),
        bytes_per_sector=page,
        tokens_per_sector=sizing.page_size,
        bytes_per_block=page,
        attn_types=["full_attention"],
        model_supports_logits_to_keep=True,
    )
    return handler.compute_memory_footprint(sizing.batch_tokens, sizing.pages)


def _stated(name: str) -> dict[str, int | bool]:
    shape = dict(SHAPES[name])
    if name == "Qwen-7B-Chat":  # as it is converted
        shape |= {"intermediate_size": 11_008, "num_key_value_heads": 32}
    return shape
