"""Settings and model files to an engine, not yet started. The one place that knows all engines.

Engine modules are imported only when chosen, so that each costs nothing to those who use another.
"""

from qwen_openai.engines.base import Engine
from qwen_openai.errors import StartupError
from qwen_openai.families import family_of
from qwen_openai.models.store import ModelFiles
from qwen_openai.prompting.render import Renderer
from qwen_openai.settings import Settings


def create_engine(settings: Settings, files: ModelFiles | None) -> Engine:
    """Make the engine that ``settings`` ask for; ``files`` is None for the fake engine alone.

    Raises StartupError when the model does not fit in memory.
    """
    if settings.engine == "fake":
        from qwen_openai.engines.fake import FakeEngine

        return FakeEngine(
            context=settings.context or 8192,
            slots=settings.slots or 16,
            default_max_tokens=settings.default_max_tokens,
        )
    if files is None:
        raise StartupError(
            "No model was given.", fix="Name one: `qwen-openai serve qwen2.5-coder-0.5b`."
        )
    return _llamacpp(settings, files)


def _llamacpp(settings: Settings, files: ModelFiles) -> Engine:
    from qwen_openai.engines.llamacpp import LlamaCppEngine, LlamaCppOptions, Vocabulary
    from qwen_openai.engines.llamacpp.sizing import choose, measure

    sizing = choose(
        files.description,
        measure(),
        context=settings.context,
        slots=settings.slots,
        threads=settings.threads,
    )
    options = LlamaCppOptions(
        weights=files.weights,
        name=files.name,
        context=sizing.context,
        slots=sizing.slots,
        threads=sizing.threads,
        batch_tokens=settings.batch_tokens,
        prompt_cache=settings.prompt_cache,
        prompt_cache_mib=settings.prompt_cache_mib,
        default_max_tokens=settings.default_max_tokens,
        stall_timeout=settings.stall_timeout,
    )

    def load_vocabulary() -> Vocabulary:
        renderer = Renderer.load(files.tokenizer, files.description.template)
        stops = (renderer.token_id(token) for token in family_of(files.name).stop_tokens)
        return Vocabulary(renderer, frozenset(stop for stop in stops if stop is not None))

    return LlamaCppEngine(options, load_vocabulary)
