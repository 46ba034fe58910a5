"""One frozen Settings, read once from flags, environment, file and defaults."""

from qwen_openai.settings.fields import ENV_PREFIX, GROUPS, Settings
from qwen_openai.settings.sources import Loaded, flag_of, load, variable_of

__all__ = ["ENV_PREFIX", "GROUPS", "Loaded", "Settings", "flag_of", "load", "variable_of"]
