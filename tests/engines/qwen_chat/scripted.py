"""A stand-in for QwenChat: says what a script says, word by word, and remembers how it was used."""

import threading
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from pathlib import Path

from qwen_openai.core import Finish, Message, Sampling, Text
from qwen_openai.errors import InvalidRequest
from qwen_openai.models.checkpoint import Checkpoint, Qwen1Facts
from qwen_openai.prompting.bpe import TooLong
from qwen_openai.prompting.renderer import MessagesOnly, Tokenised

QWEN1 = Qwen1Facts(seq_length=1024, use_dynamic_ntk=False, use_logn_attn=False)

Step = str | BaseException | threading.Event | None
"""Give a token, raise, wait for an event, or (None) read a piece of the prompt."""


def checkpoint(**changed: object) -> Checkpoint:
    """A checkpoint that no file stands behind."""
    values: dict[str, object] = {
        "name": "scripted",
        "folder": Path("nowhere"),
        "raw": True,
        "qwen1": QWEN1,
        "context_length": 1024,
        "kv_values_per_token": 1024,
        "weight_bytes": 1_000_000,
        "dtype": "float16",
    }
    return Checkpoint(**{**values, **changed})  # type: ignore[arg-type]  # named by the tests


class Words(MessagesOnly):
    """A renderer whose tokens are words; between messages stands a token of its own."""

    def __init__(self) -> None:
        self.known: list[str] = ["<turn>"]

    def render(self, messages: Sequence[Message], *, continue_final: bool = False) -> list[int]:
        ids = []
        for message in messages:
            ids += [0, *(self._id(word) for word in message.content.split())]
        return ids if continue_final else [*ids, 0]

    def render_within(
        self,
        messages: Sequence[Message],
        limit: int,
        *,
        continue_final: bool = False,
        known: Tokenised | None = None,
    ) -> list[int]:
        ids = self.render(messages, continue_final=continue_final)
        if len(ids) > limit:
            raise TooLong(len(ids))
        return ids

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        if any(number >= len(self.known) for number in ids):
            raise InvalidRequest("There is no such word.", param="tokens")
        return [self.known[number].encode() for number in ids]

    def token_id(self, token: str) -> int | None:
        return None

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.known[number] for number in ids)

    @property
    def vocab_size(self) -> int:
        return len(self.known)

    def _id(self, word: str) -> int:
        if word not in self.known:
            self.known.append(word)
        return self.known.index(word)


class Scripted:
    """Keeps the part of QwenChat that the engine uses; the default script repeats the query."""

    device = "cpu"
    dtype = "torch.float32"

    def __init__(
        self, script: Callable[[str], Iterable[Step]] | None = None, **changed: object
    ) -> None:
        self.checkpoint = checkpoint(**changed)
        self.renderer = Words()
        self.context = self.checkpoint.context_length
        self.script = script or (lambda query: [None, *query.split()])
        self.prompts: list[str] = []
        self.samplings: list[Sampling] = []
        self.given_rules: list[tuple[tuple[int, ...], str | None]] = []
        self.given = 0
        self.open = self.peak = self.closed = 0
        self.threads: set[str] = set()

    def masks(self) -> None:
        pass

    def run(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
        *,
        index: int = 0,
        stop_ids: Collection[int] = (),
        grammar: str | None = None,
    ) -> Generator[Text | Finish, None, None]:
        self.given_rules.append((tuple(stop_ids), grammar))
        self.samplings.append(sampling)
        self.prompts.append(self.renderer.decode(prompt))
        self.threads.add(threading.current_thread().name)
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            yield from self._steps(max_tokens, index)
        finally:
            self.open -= 1
            self.closed += 1

    def _steps(self, max_tokens: int, index: int) -> Generator[Text | Finish, None, None]:
        query = self.prompts[-1].split("<turn>")[-2]
        count = 0
        for step in self.script(query):
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, threading.Event):
                assert step.wait(30)
            elif step is None:
                yield Text(index, "", 0)
            else:
                count += 1
                self.given += 1
                yield Text(index, f"{step} ")
                if count == max_tokens:
                    yield Finish(index, "length", count)
                    return
        yield Finish(index, "stop", count + 1)
