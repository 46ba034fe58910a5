"""What every endpoint needs of the running gateway, in one value."""

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from hashlib import blake2b

from qwen_openai import __version__
from qwen_openai.adapter.limits import Limits
from qwen_openai.chat import ChatService
from qwen_openai.engines.base import Engine, EngineInfo, Health
from qwen_openai.errors import ModelNotFound
from qwen_openai.families import Family, family_named, family_of
from qwen_openai.grammars.check import Checker
from qwen_openai.settings import Settings

_TOKENIZED_AT_ONCE = 4


class Gateway:
    """The service and the names it answers to. One per application."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        info = engine.info()
        self.settings = settings
        self.service = ChatService(engine, queue_size=settings.queue_size)
        self.grammars = Checker()
        self.family = _family(info)
        self.refuses = info.refuses
        self.fingerprint = _fingerprint(info)
        self.model_names: Sequence[str] = settings.served_model_name or (info.model,)
        self.created = int(time.time())
        self.limits = Limits(max_n=settings.max_n, max_messages=settings.max_messages)
        # Tokenizing is CPU work of a request that no slot bounds.
        self.tokenizing = asyncio.Semaphore(_TOKENIZED_AT_ONCE)
        self.draining = False
        # The server's own set of open connections, once there is a server.
        self.connections: Collection[object] = ()

    async def detokenize(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token, as the engine does, when it is this caller's turn."""
        async with self.tokenizing:
            return await self.service.engine.detokenize(ids)

    def check_known(self, name: str) -> None:
        """As `check_model`, for routes whose callers need not name one: "" means ours."""
        if name:
            self.check_model(name)

    def check_model(self, name: str) -> None:
        """Raise ModelNotFound, with the names that exist, unless ``name`` is one of them."""
        if name not in self.model_names:
            known = ", ".join(repr(known) for known in self.model_names)
            shown = repr(name[:80])
            raise ModelNotFound(
                f"The model {shown} does not exist here. Available: {known}.", param="model"
            )

    def health(self) -> Health:
        """Whether a request sent now would be taken."""
        if self.draining:
            return Health(False, "The server is shutting down.")
        return self.service.engine.health()

    def drain(self) -> None:
        """Stop taking requests; those that run go on."""
        self.draining = True
        self.service.admission.close("The server is shutting down. Send the request again later.")

    async def aclose(self) -> None:
        """End what the gateway itself has started; the engine is its owner's to close."""
        await self.grammars.aclose()


def _family(info: EngineInfo) -> Family:
    """Return the row of `families` for an engine's model, with what the loaded model can do.

    A name tells how a model is sampled, and what its kin can do; whether this one's prompt has
    tools, thoughts and gaps, its engine has looked up. That messages become pairs is the engine's
    work, so only an engine that names the row itself is taken to do it.
    """
    family = family_named(info.family) if info.family else family_of(info.model)
    return replace(
        family,
        prompt=family.prompt if info.family else "template",
        tools=info.tools,
        thinking=info.thinking,
        fill_in=family.fill_in if info.fills_in else None,
    )


def _fingerprint(info: EngineInfo) -> str:
    """Return the `system_fingerprint` of all answers: the same while engine, model, the numbers it
    computes with and the version of this program are."""
    told = "\0".join((info.engine, info.model, info.dtype, __version__))
    return f"fp_{blake2b(told.encode(), digest_size=5).hexdigest()}"
