"""A model object of the original's shape, with the original's defects, and its tokenizer."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence

Pairs = list[tuple[str, str]]


class Letters:
    """A tokenizer whose tokens are characters; it takes tiktoken's arguments."""

    def encode(
        self,
        text: str,
        allowed_special: object = "all",
        disallowed_special: object = (),
    ) -> list[int]:
        assert allowed_special == set()
        return [ord(letter) for letter in unicodedata.normalize("NFC", text)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


class Original:
    """Answers with what ``reply`` makes of the query, character by character, as the original did:
    arguments checked as there, the caller's lists altered, a cut answer one token short."""

    device = "cuda:0"

    def __init__(self, reply: Callable[[str], str] = lambda query: query) -> None:
        self.reply = reply
        self.calls: list[dict[str, object]] = []
        self.given = 0
        self.steps: Callable[[], None] = lambda: None
        self.closed = 0

    def chat(
        self,
        tokenizer: Letters,
        query: str,
        history: Pairs,
        system: str = "You are a helpful assistant.",
        stop_words_ids: list[list[int]] | None = None,
        **kwargs: object,
    ) -> tuple[str, Pairs]:
        criteria = kwargs.pop("stopping_criteria", [])
        assert isinstance(criteria, list)
        limit = self._check(query, history, system, stop_words_ids, kwargs)
        made, whole = "", self.reply(query)
        for letter in whole[:limit]:
            self._step()
            made += letter
            if any(criterion([[1]], None) for criterion in criteria):
                break
        # Without its stop token the reply loses the last one.
        reply = made if len(whole) < limit else made[:-1]
        history.append((query, reply))
        return reply, history

    def chat_stream(
        self,
        tokenizer: Letters,
        query: str,
        history: Pairs,
        system: str = "You are a helpful assistant.",
        stop_words_ids: list[list[int]] | None = None,
        **kwargs: object,
    ) -> Iterator[str]:
        limit = self._check(query, history, system, stop_words_ids, kwargs)
        whole = self.reply(query)
        try:
            for count in range(1, min(len(whole), limit) + 1):
                self._step()
                yield whole[:count]
            if len(whole) < limit:
                yield whole  # the stop token, which shows nothing
        finally:
            self.closed += 1

    def _step(self) -> None:
        self.given += 1
        self.steps()

    def _check(
        self,
        query: str,
        history: Pairs,
        system: str,
        stop_words_ids: list[list[int]] | None,
        kwargs: dict[str, object],
    ) -> int:
        assert isinstance(history, list)
        assert stop_words_ids == []
        stop_words_ids += [[151645], [151644]]
        for text in (query, system, *(text for pair in history for text in pair)):
            assert unicodedata.is_normalized("NFC", text)
        limit = kwargs["max_new_tokens"]
        assert isinstance(limit, int)
        assert set(kwargs) == {
            "max_new_tokens",
            "temperature",
            "top_p",
            "top_k",
            "repetition_penalty",
        }
        for name in ("temperature", "top_p", "repetition_penalty"):
            value = kwargs[name]
            assert isinstance(value, float)
            assert value > 0
        self.calls.append({"query": query, "history": list(history), "system": system, **kwargs})
        return limit
