"""One frozen Settings, read once: flags beat environment, that beats the file, that the default.

A config file is flat TOML with the field names below; the environment uses `QWEN_OPENAI_` and the
upper-cased field name. An unknown key anywhere is an error that names the nearest known one. Where
a value came from is kept, for `qwen-openai config`. Knows nothing of what the settings steer.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from qwen_openai.errors import StartupError

ENV_PREFIX = "QWEN_OPENAI_"
# Names with our prefix that are read elsewhere: the config file's path, the address that `chat` and
# the examples call, and the tests' data folder.
_OTHER_VARIABLES = frozenset({"QWEN_OPENAI_CONFIG", "QWEN_OPENAI_BASE_URL", "QWEN_OPENAI_SHARED"})

# The fields in the order and under the headings in which help, `config` and the manual show them.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Model", ("model", "served_model_name", "engine", "home", "offline")),
    ("Address", ("host", "port", "api_key", "insecure_no_auth", "allowed_hosts", "docs")),
    (
        "Engine",
        (
            "context",
            "slots",
            "threads",
            "batch_tokens",
            "prompt_cache",
            "prompt_cache_mib",
            "default_max_tokens",
            "answer_timeout",
            "stall_timeout",
            "on_engine_loss",
            "device_map",
            "dtype",
        ),
    ),
    (
        "Requests",
        (
            "queue_size",
            "max_n",
            "max_messages",
            "always_stream_usage",
            "reasoning_field",
            "strict_parameters",
        ),
    ),
    (
        "Connections",
        (
            "max_body_bytes",
            "header_timeout",
            "body_timeout",
            "write_timeout",
            "keep_alive",
            "limit_connections",
            "drain_timeout",
        ),
    ),
    ("Logs", ("log_level", "log_format")),
)


def _split(value: object) -> object:
    """Accept "a,b" from the environment or a flag where a list is meant."""
    return (
        [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, str)
        else value
    )


def _expand(value: object) -> object:
    """Let `~` mean the home directory, as in a shell."""
    return Path(value).expanduser() if isinstance(value, str | Path) else value


def _bearer(key: SecretStr) -> SecretStr:
    """Refuse a key that no Authorization header can carry; an empty one would admit everybody."""
    value = key.get_secret_value()
    if not value:
        raise ValueError("the key is empty")
    if not all("!" <= character <= "~" for character in value):
        raise ValueError("a key is made of visible ASCII characters, without blanks")
    return key


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Directory = Annotated[Path, BeforeValidator(_expand)]
Key = Annotated[SecretStr, AfterValidator(_bearer)]


class Settings(BaseSettings):
    """Every setting, with its default, its bounds and its meaning."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="forbid",
        enable_decoding=False,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    model: str = Field(
        "qwen2.5-coder-0.5b",
        min_length=1,
        description="catalogue name, ModelScope id or local path",
    )
    served_model_name: Names = Field(
        (), description="names clients may use; empty: the model's own"
    )
    engine: Literal["auto", "llamacpp", "transformers", "qwen_chat", "fake"] = Field(
        "auto", description="what runs the model; auto: llamacpp for GGUF, else transformers"
    )

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address to listen on; others than loopback need a key",
    )
    port: int = Field(6006, ge=0, le=65535, description="TCP port; 0 picks a free one")
    api_key: Key | None = Field(None, description="the Bearer key that clients must send")
    insecure_no_auth: bool = Field(False, description="serve beyond loopback without a key")
    allowed_hosts: Names = Field((), description="Host header values to accept; empty: any")
    docs: bool = Field(True, description="serve /docs and /openapi.json")

    context: int | None = Field(
        None, ge=256, description="most tokens of prompt and answer; empty: from memory"
    )
    slots: int | None = Field(
        None, ge=1, le=256, description="answers made at once; empty: from memory; qwen_chat: 1"
    )
    threads: int | None = Field(
        None, ge=1, description="engine threads; empty: the cores of this machine"
    )
    batch_tokens: int = Field(
        128,
        ge=16,
        le=2048,
        description="prompt tokens read in one step; torch on a card: 512 unless set",
    )
    prompt_cache: bool = Field(
        True, description="llamacpp: reuse the state of an earlier, like prompt"
    )
    prompt_cache_mib: int = Field(
        0, ge=0, description="llamacpp: further memory for prompts of idle slots, MiB"
    )
    default_max_tokens: int = Field(
        4096, ge=1, description="answer limit where a request gives none"
    )
    answer_timeout: float | None = Field(
        None, gt=0, description="transformers: seconds one answer may take; empty: any time"
    )
    stall_timeout: float = Field(
        120, gt=0, description="seconds of engine silence taken for a hang"
    )
    on_engine_loss: Literal["restart", "exit"] = Field(
        "restart",
        description="transformers broken or hung: start it anew, or end for a supervisor",
    )
    device_map: str = Field(
        "auto",
        min_length=1,
        description="device of transformers and qwen_chat: auto, cpu, cuda:0, ...",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description="numbers of the same two; auto: the checkpoint's own, on a CPU float32",
    )

    queue_size: int = Field(64, ge=0, description="requests that may wait for a slot; then 503")
    max_n: int = Field(8, ge=1, le=128, description="largest n of a request")
    max_messages: int = Field(2048, ge=1, description="most messages in a request")
    always_stream_usage: bool = Field(False, description="send the usage chunk unasked")
    reasoning_field: Literal["reasoning_content", "reasoning", "both"] = Field(
        "reasoning_content", description="the member of messages and deltas that holds thoughts"
    )
    strict_parameters: bool = Field(
        False, description="refuse parameters that have no effect, instead of ignoring them"
    )

    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="largest request body, bytes")
    header_timeout: float = Field(10, gt=0, description="seconds a client has to send its headers")
    body_timeout: float = Field(30, gt=0, description="seconds a client has to send its body")
    write_timeout: float = Field(30, gt=0, description="seconds a reader may block a stream")
    keep_alive: float = Field(15, gt=0, description="seconds an idle connection is kept")
    limit_connections: int = Field(2048, ge=1, description="open connections; more get 503")
    drain_timeout: float = Field(30, ge=0, description="seconds streams have to finish on SIGTERM")

    home: Directory | None = Field(
        None, description="where models are kept; empty: the user's cache"
    )
    offline: bool = Field(False, description="never use the network")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level logged"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values as given: `load` has merged the sources, and knows each value's origin."""
        return (init_settings,)

    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def check_exposure(self) -> None:
        """Raise StartupError where strangers could reach a server that asks for no key."""
        if self.is_loopback() or self.api_key is not None or self.insecure_no_auth:
            return
        raise StartupError(
            f"The host {self.host} can be reached from other machines and no API key is set.",
            fix="Set QWEN_OPENAI_API_KEY, or allow everybody in with --insecure-no-auth.",
        )


def variable_of(name: str) -> str:
    """Return the environment variable that sets a field."""
    return ENV_PREFIX + name.upper()


def flag_of(name: str) -> str:
    """Return the command-line flag that sets a field."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each value came from: "default", a file, a variable or a flag."""

    settings: Settings
    origin: Mapping[str, str]


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Loaded:
    """Merge file, environment and flags (None values mean "not given") into Settings.

    Raises StartupError, in one sentence with a fix, for an unreadable file, an unknown key or a
    value out of range.
    """
    environ = os.environ if environ is None else environ
    if config is None and environ.get("QWEN_OPENAI_CONFIG"):
        config = Path(environ["QWEN_OPENAI_CONFIG"])
    values: dict[str, object] = {}
    origin = dict.fromkeys(Settings.model_fields, "default")
    for source in (_from_file(config), _from_environ(environ), _from_flags(flags or {})):
        for name, (value, where) in source.items():
            values[name] = value
            origin[name] = where
    try:
        settings = Settings(**values)  # type: ignore[arg-type]  # validated by pydantic on the way in
    except ValidationError as error:
        raise _explain(error, values, origin) from None
    return Loaded(settings, origin)


def _from_file(path: Path | None) -> dict[str, tuple[object, str]]:
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartupError(
            f"The config file {path} cannot be read: {error.strerror}.",
            fix="Check the path given with --config or QWEN_OPENAI_CONFIG.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartupError(
            f"The config file {path} is not valid TOML: {error}.", fix="Mend the line it names."
        ) from None
    for name in content:
        _check_known(name, f"in {path}", name)
    return {name: (value, str(path)) for name, value in content.items()}


def _from_environ(environ: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    found: dict[str, tuple[object, str]] = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        _check_known(name, "in the environment", variable)
        # Set but empty means not set, as in most programs; for the key that would open the door.
        if value != "" or name == "api_key":
            found[name] = (value, variable)
    return found


def _from_flags(flags: Mapping[str, object]) -> dict[str, tuple[object, str]]:
    return {
        name: (value, "MODEL" if name == "model" else flag_of(name))
        for name, value in flags.items()
        if value is not None
    }


def _check_known(name: str, where: str, shown: str) -> None:
    if name in Settings.model_fields:
        return
    near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.5)
    hint = (variable_of(near[0]) if shown.isupper() else near[0]) if near else None
    raise StartupError(
        f"Unknown setting {shown!r} {where}.",
        fix=f"Did you mean {hint!r}?" if hint else "`qwen-openai config` lists all settings.",
    )


def _explain(
    error: ValidationError, values: Mapping[str, object], origin: Mapping[str, str]
) -> StartupError:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0])
    given = "what it is" if name == "api_key" else repr(values[name])
    reason = _lower_first(first["msg"].removeprefix("Value error, "))
    return StartupError(
        f"The setting {name!r} cannot be {given} (from {origin[name]}): {reason}.",
        fix=f"Its meaning: {Settings.model_fields[name].description}.",
    )


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
