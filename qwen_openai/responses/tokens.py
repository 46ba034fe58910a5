"""The bodies of /tokenize, /detokenize and the counting of a prompt's tokens. Knows no HTTP.

The first two are vLLM's shapes (TokenizeResponse, DetokenizeResponse); the count is OpenAI's answer
of /v1/responses/input_tokens under chat's name. What grows with a prompt is made JSON here, so that
it can be done beside the event loop: millions of tokens take most of a second.
"""

from collections.abc import Sequence

import orjson


def tokenize_body(
    ids: Sequence[int], context: int, pieces: Sequence[bytes] | None
) -> dict[str, object]:
    """Return tokens and the most that the model takes; `pieces` are the tokens' bytes, where their
    texts are wanted (broken UTF-8 is replaced)."""
    texts = None if pieces is None else [piece.decode("utf-8", "replace") for piece in pieces]
    return {
        "count": len(ids),
        "max_model_len": context,
        "tokens": _json(list(ids)),
        "token_strs": _json(texts),
    }


def detokenize_body(pieces: Sequence[bytes]) -> dict[str, object]:
    """Return the text of tokens, broken UTF-8 replaced."""
    return {"prompt": _json(b"".join(pieces).decode("utf-8", "replace"))}


def input_tokens_body(count: int) -> dict[str, object]:
    """Return the number of tokens that a chat request's prompt has."""
    return {"object": "chat.completion.input_tokens", "input_tokens": count}


def _json(value: object) -> orjson.Fragment:
    """Return a value that `orjson.dumps` only copies."""
    return orjson.Fragment(orjson.dumps(value))
