"""One frozen Settings, read from flags, environment, file and defaults, and again on demand."""

from qwen_openai.settings.changes import Change, change, look_at
from qwen_openai.settings.checks import check_upstreams
from qwen_openai.settings.fields import ENV_PREFIX, GROUPS, Settings
from qwen_openai.settings.sources import Loaded, flag_of, load, variable_of

__all__ = [
    "ENV_PREFIX",
    "GROUPS",
    "Change",
    "Loaded",
    "Settings",
    "change",
    "check_upstreams",
    "flag_of",
    "load",
    "look_at",
    "variable_of",
]
