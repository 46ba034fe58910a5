"""An engine whose tokens are characters and whose ids are code points, for doors that show tokens.

It answers with a fixed text, says how likely each token was when asked, and reads prompts as they
are: a filled-in gap too.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from qwen_openai.core import Event, Finish, FinishReason, Job, Started, Text, TokenLogprob
from qwen_openai.engines.base import EngineInfo
from qwen_openai.engines.fake import FakeEngine
from qwen_openai.errors import InvalidRequest


class Letters(FakeEngine):
    """Gives choice i of a prompt the text `answers[i % len(answers)]`."""

    def __init__(
        self,
        *answers: str,
        slots: int = 4,
        model: str = "qwen2.5-coder",
        refuses: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(slots=slots)
        self._answers = answers or ("ok",)
        self._named = model
        self._cannot = refuses

    def info(self) -> EngineInfo:
        return replace(super().info(), model=self._named, fills_in=True, refuses=self._cannot)

    async def tokenize(self, job: Job) -> list[int]:
        if job.prompt is None:
            return [ord(letter) for message in job.messages for letter in message.content]
        if isinstance(job.prompt.text, str):
            return [ord(letter) for letter in job.prompt.text]
        return list(job.prompt.text)

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        if any(each > 0x10FFFF for each in ids):
            raise InvalidRequest("There is no such token.", param="tokens")
        return [chr(each).encode() for each in ids]

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        self.jobs.append(job)
        index, limit = job.choice, job.sampling.max_tokens or 100
        yield Started(index, len(await self.tokenize(job)))
        answer = self._answers[index % len(self._answers)]
        for letter in answer[:limit]:
            yield Text(index, letter, 1, self._logprobs(job, letter))
        reason: FinishReason = "length" if len(answer) > limit else "stop"
        yield Finish(index, reason, len(answer[:limit]))

    def _logprobs(self, job: Job, letter: str) -> tuple[TokenLogprob, ...]:
        """The later in the alphabet, the less likely."""
        most = job.sampling.logprobs
        if most is None:
            return ()
        ranked = [TokenLogprob(each, each.encode(), -ord(each) / 10) for each in "abcdefg"]
        own = TokenLogprob(letter, letter.encode(), -ord(letter) / 10, tuple(ranked[:most]))
        return (own,)
