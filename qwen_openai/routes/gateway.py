"""What every endpoint needs of the running gateway, in one value."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from qwen_openai import __version__
from qwen_openai.adapter.limits import Limits
from qwen_openai.chat import ChatService
from qwen_openai.engines.base import Engine, EngineInfo, Health
from qwen_openai.errors import EngineUnavailable, ModelNotFound
from qwen_openai.families import Family, family_named, family_of
from qwen_openai.gateway.bookkeeper import Bookkeeper
from qwen_openai.gateway.keys import ANYBODY, Key, KeyLimits, KeyRing
from qwen_openai.gateway.ledger import Ledger
from qwen_openai.gateway.limits import Limiter
from qwen_openai.gateway.pool import Pool
from qwen_openai.grammars.check import Checker
from qwen_openai.observe.lag import Lag
from qwen_openai.observe.metrics import Metrics
from qwen_openai.settings import Settings

_TOKENIZED_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and whether what would be ignored is to be refused."""

    key: Key = ANYBODY
    strict: bool = False


class Served:
    """One model as this gateway answers for it: its service, and what is known of the model.
    ``own_name`` is what it is called where it runs."""

    def __init__(self, engine: Engine, *, queue_size: int, created: int) -> None:
        self.service = ChatService(engine, queue_size=queue_size)
        self.created = created
        self._describe(engine.info())

    def refresh(self) -> None:
        """Take what the engine says of itself now: what its upstreams are may be found out late,
        and changes when others take their place."""
        info = self.engine.info()
        if info is not self._info:
            self._describe(info)
            self.service.resize()

    def _describe(self, info: EngineInfo) -> None:
        self._info = info
        self.own_name = info.model
        self.family = _family(info)
        self.refuses = info.refuses
        self.hands_on = info.hands_on
        self.fingerprint = _fingerprint(info)

    @property
    def engine(self) -> Engine:
        """What runs it."""
        return self.service.engine


class Gateway:
    """The models and the names they answer to, who may use them, and what is noted of it. One per
    application."""

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        """``engine`` is the one that runs here, started; the upstreams are the settings'."""
        self.settings = settings
        self.created = int(time.time())
        self.grammars = Checker()
        self.limits = Limits(max_n=settings.max_n, max_messages=settings.max_messages)
        # Tokenizing is CPU work of a request that no slot bounds.
        self.tokenizing = asyncio.Semaphore(_TOKENIZED_AT_ONCE)
        self.draining = False
        # The server's own set of open connections, once there is a server.
        self.connections: Collection[object] = ()
        self.keys = KeyRing(
            settings.api_key.get_secret_value() if settings.api_key else None,
            always=not settings.lets_anybody_in,
        )
        self.limiter = Limiter(_total(settings))
        self.ledger = Ledger()
        self.metrics = Metrics()
        self.lag = Lag()
        self.bookkeeper = Bookkeeper(settings, self.keys, self.ledger, self.limiter)
        self.pool = Pool(settings)
        self._local: dict[str, Served] = {}
        if engine is not None:
            served = self._serve(engine)
            names = settings.served_model_name or (served.own_name,)
            self._local = dict.fromkeys(names, served)
        self._pooled: dict[str, Served] = {}

    async def start(self) -> None:
        """Open the database and look for the upstreams. Raises StartupError."""
        self.lag.start()
        await self.bookkeeper.start()
        await self.pool.start()

    async def aclose(self) -> None:
        """End what the gateway itself has started; the engine is its owner's to close."""
        self.lag.stop()
        await self.grammars.aclose()
        await self.pool.aclose()
        await self.bookkeeper.aclose()

    async def apply(self, settings: Settings) -> None:
        """Take what may change while the server runs: upstreams, aliases and limits."""
        self.settings = settings
        self.limiter.apply(_total(settings))
        await self.pool.apply(settings)

    @property
    def models(self) -> Mapping[str, Served]:
        """All models by the names that clients use, aliases too; the first is the usual one."""
        served = {**self._local, **self._of_pool()}
        for alias, name in self.settings.aliases.items():
            if name in served:
                served.setdefault(alias, served[name])
        return served

    @property
    def model_names(self) -> Sequence[str]:
        """The names that there are, in their order."""
        return list(self.models)

    def names_for(self, key: Key) -> Sequence[str]:
        """The names that this key may use, in their order."""
        return [name for name in self.models if key.may_use(name)]

    def served(self, name: str, key: Key = ANYBODY) -> Served:
        """Return what answers to a name. Raises ModelNotFound, with the names that this key may
        use, for one that is none of them: it does not tell forbidden from unknown."""
        if key.may_use(name):
            found = self._local.get(name) or self._pooled_one(name)
            if found is None and name in self.settings.aliases:
                found = self.models.get(name)
            if found is not None:
                return found
        known = ", ".join(repr(known) for known in self.names_for(key))
        raise ModelNotFound(
            f"The model {name[:80]!r} does not exist here. Available: {known or 'none, just now'}.",
            param="model",
        )

    def default(self, key: Key = ANYBODY) -> tuple[str, Served]:
        """The model for callers who name none: the first that this key may use. Raises
        EngineUnavailable while there is none."""
        models = self.models
        for name, served in models.items():
            if key.may_use(name):
                return name, served
        if models:
            raise ModelNotFound("This key may use none of the models here.", param="model")
        raise EngineUnavailable("No upstream has answered yet. Try again soon.", retry_after=2)

    def named(self, name: str, key: Key = ANYBODY) -> Served:
        """As `served`, for routes whose callers need not name a model: "" is the usual one."""
        return self.served(name, key) if name else self.default(key)[1]

    async def detokenize(self, served: Served, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token, as the engine does, when it is this caller's turn."""
        async with self.tokenizing:
            return await served.engine.detokenize(ids)

    def health(self) -> Health:
        """Whether a request sent now would be taken."""
        if self.draining:
            return Health(False, "The server is shutting down.")
        healths = [served.engine.health() for served in set(self.models.values())]
        if not healths:
            return self.pool.health()
        return next((each for each in healths if each.ready), healths[0])

    def drain(self) -> None:
        """Stop taking requests; those that run go on."""
        self.draining = True
        for served in {*self._local.values(), *self._pooled.values()}:
            served.service.admission.close(
                "The server is shutting down. Send the request again later."
            )

    def _serve(self, engine: Engine) -> Served:
        return Served(engine, queue_size=self.settings.queue_size, created=self.created)

    def _of_pool(self) -> Mapping[str, Served]:
        for name in self.pool.models:
            self._pooled_one(name)
        return {name: self._pooled[name] for name in self.pool.models}

    def _pooled_one(self, name: str) -> Served | None:
        engine = self.pool.models.get(name)
        if engine is None:
            return None
        served = self._pooled.get(name)
        if served is None or served.engine is not engine:
            served = self._pooled[name] = self._serve(engine)
            if self.draining:
                self.drain()
        served.refresh()
        return served


def _total(settings: Settings) -> KeyLimits:
    return KeyLimits(
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        parallel_requests=settings.parallel_requests,
    )


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
