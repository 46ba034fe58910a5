"""What a caller of `chat` asks for: a generation config and keywords, checked and decided.

Every wrong value is a ValueError or a TypeError that names it, before any work is done. Keywords
come before the config, as in transformers; what would be ignored is refused. No torch here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

from qwen_openai.core import Sampling
from qwen_openai.prompting.bpe import Bpe


@dataclass(frozen=True, slots=True)
class Arguments:
    """How to answer. ``max_new_tokens`` bounds the answer, ``max_length`` prompt and answer
    together; ``stop_ids`` end the answer, ``stop_words`` are trimmed off it with all behind.
    ``enable_thinking`` is for the chat template; None: as it likes."""

    sampling: Sampling
    max_new_tokens: int | None
    max_length: int | None
    min_new_tokens: int
    max_window_size: int | None
    stop_words: tuple[str, ...]
    stop_ids: frozenset[int]
    append_history: bool = True
    enable_thinking: bool | None = None


def read_arguments(
    config: object, stop_words_ids: object, keywords: Mapping[str, object], bpe: Bpe
) -> Arguments:
    """Decide all arguments of a call.

    ``config`` is any object with attributes, or a mapping, or None; what it does not have, or has
    as None, is not set. What is not done may be given in either, with a value that asks for
    nothing. Raises ValueError and TypeError.
    """
    given = _Given(_told(keywords))
    stated = _Given(_stated(config))
    words, ids = _stops(stop_words_ids, bpe)
    both = _Given({**stated.values, **given.values})
    limits = given if {"max_new_tokens", "max_length"} & given.values.keys() else stated
    max_new_tokens = limits.whole("max_new_tokens")
    # A config's own max_length is transformers' fallback: it counts where nothing else does.
    ignored = limits is stated and max_new_tokens is not None
    return Arguments(
        sampling=_sampling(both),
        max_new_tokens=max_new_tokens,
        max_length=None if ignored else limits.whole("max_length"),
        min_new_tokens=both.whole("min_new_tokens") or 0,
        max_window_size=both.whole("max_window_size"),
        stop_words=(*words, *both.words("stop_words")),
        stop_ids=ids | both.ids("eos_token_id"),
        append_history=given.values.get("append_history") is not False,
        enable_thinking=given.flag("enable_thinking"),
    )


def read_stop_ids(config: object) -> frozenset[int]:
    """Return only the ids at which a generation config ends an answer. Raises as above."""
    return _ids("generation_config.eos_token_id", _attribute(config, "eos_token_id")) or frozenset()


class _Given:
    """Values by name, read back in their types."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self.values = values

    def real(self, name: str, default: float) -> float:
        value = self.values.get(name)
        return value if isinstance(value, float) else default

    def whole(self, name: str) -> int | None:
        value = self.values.get(name)
        return value if isinstance(value, int) else None

    def flag(self, name: str) -> bool | None:
        value = self.values.get(name)
        return value if isinstance(value, bool) else None

    def words(self, name: str) -> tuple[str, ...]:
        value = self.values.get(name)
        return value if isinstance(value, tuple) else ()

    def ids(self, name: str) -> frozenset[int]:
        value = self.values.get(name)
        return value if isinstance(value, frozenset) else frozenset()


def _sampling(given: _Given) -> Sampling:
    """Greedy unless sampling is asked for: by do_sample, or, where that is not set, by any of the
    numbers that only sampling knows."""
    do_sample = given.flag("do_sample")
    if do_sample is None:
        do_sample = any(name in given.values for name in ("temperature", "top_p", "top_k", "min_p"))
    return Sampling(
        temperature=given.real("temperature", 1.0) if do_sample else 0.0,
        top_p=given.real("top_p", 1.0),
        top_k=given.whole("top_k") or 0,
        min_p=given.real("min_p", 0.0),
        presence_penalty=given.real("presence_penalty", 0.0),
        frequency_penalty=given.real("frequency_penalty", 0.0),
        repetition_penalty=given.real("repetition_penalty", 1.0),
        seed=given.whole("seed"),
    )


def _told(keywords: Mapping[str, object]) -> dict[str, object]:
    """Read keywords. What is asked for and is not done here is refused by name."""
    found: dict[str, object] = {}
    for name, value in keywords.items():
        if name in _NOT_DONE:
            _refuse_what_is_not_done(f"{name}={value!r}: that is not done", name, value)
        elif reader := _READERS.get(name) or _OF_A_CALL.get(name):
            found[name] = reader(name, value)
        else:
            known = ", ".join(sorted([*_READERS, *_OF_A_CALL]))
            raise TypeError(f"unknown argument {name!r}; there are: {known}")
    return {name: value for name, value in found.items() if value is not None}


def _refuse_what_is_not_done(sentence: str, name: str, value: object) -> None:
    # Equality of tensors and arrays is none that has a truth.
    plain = value is None or isinstance(value, bool | float | int | list | dict)
    if not plain or value not in (None, *_NOT_DONE[name]):
        raise ValueError(sentence)


def _stated(config: object) -> dict[str, object]:
    """Read a generation config. What it asks for and is not done here is refused by name."""
    if isinstance(config, str | bytes | Real | Sequence):
        raise TypeError(
            "generation_config must be an object with attributes, such as transformers'"
            f" GenerationConfig, or a dict, not {type(config).__name__}"
        )
    for name in _NOT_DONE:
        value = _attribute(config, name)
        sentence = f"generation_config asks for {name}={value!r}: that is not done"
        _refuse_what_is_not_done(sentence, name, value)
    found = {
        name: reader(f"generation_config.{name}", _attribute(config, name))
        for name, reader in _READERS.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def _attribute(config: object, name: str) -> object:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _stops(stop_words_ids: object, bpe: Bpe) -> tuple[tuple[str, ...], frozenset[int]]:
    """Part lists of ids into texts to stop at and single control tokens that end the answer."""
    if stop_words_ids is None:
        return (), frozenset()
    words: list[str] = []
    ids: set[int] = set()
    for number, each in enumerate(_items("stop_words_ids", stop_words_ids)):
        name = f"stop_words_ids[{number}]"
        tokens = [_whole(name, token, 0) for token in _items(name, each)]
        if not tokens or any(token is None or not bpe.piece(token) for token in tokens):
            raise ValueError(f"{name} must be a list of at least one token id, all known")
        whole = [token for token in tokens if token is not None]
        if len(whole) == 1 and whole[0] in bpe.special:
            ids.add(whole[0])
            continue
        try:
            words.append(b"".join(map(bpe.piece, whole)).decode())
        except UnicodeDecodeError as exc:
            raise ValueError(f"{name} is no whole text: use stop_words for it") from exc
    return tuple(words), frozenset(ids)


def _items(name: str, value: object) -> Iterable[object]:
    # Tensors and arrays of ids come as they are.
    listed = getattr(value, "tolist", lambda: value)()
    if isinstance(listed, str | bytes | Mapping) or not isinstance(listed, Iterable):
        raise TypeError(f"{name} must be a list, not {type(value).__name__}")
    return listed


def _real(name: str, value: object, least: float, most: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    number = float(value)
    if not least <= number <= most:
        raise ValueError(f"{name} must be between {least:g} and {most:g}, not {value!r}")
    return number


def _whole(name: str, value: object, least: int, most: int = 2**63 - 1) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number = int(value)
    if not least <= number <= most:
        raise ValueError(f"{name} must be between {least} and {most}, not {value!r}")
    return number


def _flag(name: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise TypeError(f"{name} must be True or False, not {value!r}")


def _words(name: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    words = [value] if isinstance(value, str) else list(_items(name, value))
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"{name} must be strings, not {word!r}")
        if not word:
            raise ValueError(f"{name} has an empty string: that is everywhere")
    return tuple(word for word in words if isinstance(word, str))


def _ids(name: str, value: object) -> frozenset[int] | None:
    if value is None:
        return None
    tokens = [value] if isinstance(value, Integral) else _items(name, value)
    read = (_whole(name, token, 0) for token in tokens)
    return frozenset(token for token in read if token is not None)


def _without_effect(name: str, value: object) -> None:
    """One prompt needs no padding, and the cache changes no token; callers pass both."""


_Reader = Callable[[str, object], object]
_READERS: Mapping[str, _Reader] = {
    "do_sample": _flag,
    "eos_token_id": _ids,
    "frequency_penalty": partial(_real, least=-2, most=2),
    "max_length": partial(_whole, least=1),
    "max_new_tokens": partial(_whole, least=1),
    "max_window_size": partial(_whole, least=0),
    "min_new_tokens": partial(_whole, least=0),
    "min_p": partial(_real, least=0, most=1),
    "pad_token_id": _without_effect,
    "presence_penalty": partial(_real, least=-2, most=2),
    "repetition_penalty": partial(_real, least=0.01, most=100),
    "seed": partial(_whole, least=-(2**63)),
    "stop_words": _words,
    "temperature": partial(_real, least=0, most=100),
    "top_k": partial(_whole, least=0),
    "top_p": partial(_real, least=0, most=1),
    "use_cache": _without_effect,
}
# What is of a call alone, and in no generation config.
_OF_A_CALL: Mapping[str, _Reader] = {
    "append_history": _flag,
    "enable_thinking": _flag,
}
# What transformers' generate would do, and the values that ask for nothing.
_NOT_DONE: Mapping[str, tuple[object, ...]] = {
    "assistant_model": (),
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "constraints": ([],),
    "diversity_penalty": (0.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "exponential_decay_length_penalty": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "force_words_ids": ([],),
    "guidance_scale": (1.0,),
    "logits_processor": ([],),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    "output_logits": (False,),
    "output_scores": (False,),
    "penalty_alpha": (0.0,),
    "prefix_allowed_tokens_fn": (),
    "return_dict_in_generate": (False,),
    "sequence_bias": ([], {}),
    "stop_strings": ([],),
    "stopping_criteria": ([],),
    "stream": (False,),
    "streamer": (),
    "suppress_tokens": ([],),
    "top_h": (),
    "typical_p": (1.0,),
}
