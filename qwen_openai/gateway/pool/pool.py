"""All upstreams of the settings, and an engine for each model that they have together."""

from collections.abc import Mapping

from qwen_openai.engines.base import Engine, Health
from qwen_openai.settings import Settings


class Pool:
    """Owns the upstreams, their connections and the looking after them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.models: Mapping[str, Engine] = {}

    async def start(self) -> None:
        """Look for the upstreams; one that does not answer yet is looked for again later."""

    async def apply(self, settings: Settings) -> None:
        """Take changed upstreams: those that stay keep their connections and their state, those
        that go finish what they do."""
        self._settings = settings

    async def aclose(self) -> None:
        """Stop looking and close all connections."""

    def health(self) -> Health:
        """Whether any upstream would take a job."""
        return Health(False, "No upstream has answered yet.")
