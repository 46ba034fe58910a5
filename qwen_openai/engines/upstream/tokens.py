"""Text and tokens by the tokenizer of another server: vLLM's endpoints, SGLang's, llama.cpp's.

Knows no connection: what it asks goes through a function that it is given.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from qwen_openai.core import Job
from qwen_openai.engines.upstream.failures import Reporter
from qwen_openai.engines.upstream.kinds import Row
from qwen_openai.engines.upstream.request import conversation_of
from qwen_openai.errors import InvalidRequest, UpstreamFailed

Ask = Callable[[str, dict[str, object]], Awaitable[object]]
"""Posts a body to a path behind the server's root; returns the JSON of the answer."""


class Tokenizer:
    """Asks one server."""

    def __init__(self, ask: Ask, row: Row, report: Reporter) -> None:
        self._ask = ask
        self._row = row
        self._report = report

    async def tokenize(self, job: Job, model: str) -> list[int]:
        """Return the ids of a job's prompt. Raises InvalidRequest where the server has no endpoint
        for it, UpstreamFailed for what is no answer."""
        self._require()
        prompt = job.prompt
        if prompt is not None and not isinstance(prompt.text, str):
            return list(prompt.text)
        text = None if prompt is None or not isinstance(prompt.text, str) else prompt.text
        if self._row.tokens == "vllm":
            asked: dict[str, object] = {"model": model}
            if text is None:
                asked |= conversation_of(job, self._row)
            else:
                asked |= {"prompt": text, "add_special_tokens": False}
            return self._ids(await self._ask("/tokenize", asked))
        if text is None:
            shown = await self._ask("/apply-template", conversation_of(job, self._row))
            text = self._member(shown, "prompt")
        # In a text of the caller's own, control tokens are what they say.
        body: dict[str, object] = {"content": text, "add_special": False, "parse_special": True}
        return self._ids(await self._ask("/tokenize", body))

    async def detokenize(self, ids: Sequence[int], model: str) -> list[bytes]:
        """Return the bytes of each token, or those of all in the first's place. Raises as
        `tokenize`."""
        self._require()
        if not ids:
            return []
        llama = self._row.tokens == "llamacpp"
        asked: dict[str, object] = {"tokens": list(ids)}
        if not llama:
            asked["model"] = model
        answer = await self._ask("/detokenize", asked)
        text = self._member(answer, *(("content",) if llama else ("prompt", "text")))
        pieces = await self._pieces(ids, text, model)
        whole = text.encode("utf-8", "replace")
        return pieces if pieces else [whole, *[b""] * (len(ids) - 1)]

    async def _pieces(self, ids: Sequence[int], text: str, model: str) -> list[bytes]:
        """Return the bytes of each token, where the text leads back to the same tokens and the
        server tells what they are; else nothing."""
        llama = self._row.tokens == "llamacpp"
        if llama:
            body: dict[str, object] = {"content": text, "add_special": False, "with_pieces": True}
            body["parse_special"] = True
        else:
            body = {"model": model, "prompt": text, "add_special_tokens": False}
            body["return_token_strs"] = True
        try:
            answer = await self._ask("/tokenize", body)
            if self._ids(answer) != list(ids):
                return []
        except (InvalidRequest, UpstreamFailed):
            return []  # only this finer question has no answer
        pieces = _pieces_of(answer) if llama else _strings_of(answer)
        return pieces if b"".join(pieces) == text.encode("utf-8", "replace") else []

    def _require(self) -> None:
        if self._row.tokens is None:
            raise InvalidRequest(
                "The server that runs this model does not tell its tokens; ask for a model that "
                "another server runs.",
                param="model",
                code="unsupported_model",
            )

    def _ids(self, answer: object) -> list[int]:
        tokens = answer.get("tokens") if isinstance(answer, Mapping) else None
        if isinstance(tokens, list):
            told = [each.get("id") if isinstance(each, dict) else each for each in tokens]
            ids = [each for each in told if type(each) is int]
            if len(ids) == len(tokens):
                return ids
        raise self._report.failed("did not list tokens as it should")

    def _member(self, answer: object, *names: str) -> str:
        for name in names:
            value = answer.get(name) if isinstance(answer, Mapping) else None
            if isinstance(value, str):
                return value
        raise self._report.failed("did not tell a text as it should")


def _pieces_of(answer: object) -> list[bytes]:
    """Read llama.cpp's pieces: a text, or a list of bytes where they are none."""
    pieces: list[bytes] = []
    for each in answer["tokens"] if isinstance(answer, dict) else ():
        piece = each.get("piece") if isinstance(each, dict) else None
        if isinstance(piece, str):
            pieces.append(piece.encode("utf-8", "replace"))
        elif isinstance(piece, list) and all(type(b) is int and 0 <= b < 256 for b in piece):
            pieces.append(bytes(piece))
        else:
            return []
    return pieces


def _strings_of(answer: object) -> list[bytes]:
    """Read vLLM's strings: as they are, or in the alphabet of byte-level BPE."""
    strings = answer.get("token_strs") if isinstance(answer, dict) else None
    if not isinstance(strings, list) or not all(isinstance(each, str) for each in strings):
        return []
    plain = [each.encode("utf-8", "replace") for each in strings]
    letters = _alphabet()
    if not any(letters.get(char, -1) != ord(char) for each in strings for char in each):
        return plain
    spelled = [
        bytes(letters[char] for char in each) if all(char in letters for char in each) else raw
        for each, raw in zip(strings, plain, strict=True)
    ]
    return spelled


def _alphabet() -> dict[str, int]:
    """Return GPT-2's letters for bytes: printable ones of Latin-1 are themselves, the others
    follow from U+0100 on in their order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    letters = {chr(byte): byte for byte in printable}
    letters.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return letters
