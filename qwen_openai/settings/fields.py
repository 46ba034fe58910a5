"""Every setting there is: name, default, bounds, meaning. Knows nothing of where values come from,
nor of what they steer.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from qwen_openai.errors import StartupError
from qwen_openai.upstreams import Upstream, from_urls

ENV_PREFIX = "QWEN_OPENAI_"
# The fields in the order and under the headings in which help, `config` and the manual show them.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Model", ("model", "served_model_name", "engine", "home", "offline")),
    (
        "Address",
        (
            "host",
            "port",
            "api_key",
            "insecure_no_auth",
            "allowed_hosts",
            "trusted_proxies",
            "cors_origins",
            "docs",
        ),
    ),
    (
        "Upstreams",
        (
            "upstreams",
            "aliases",
            "connect_timeout",
            "first_token_timeout",
            "token_timeout",
            "total_timeout",
            "upstream_attempts",
            "affinity_gap",
            "probe_interval",
            "breaker_failures",
        ),
    ),
    (
        "Limits and usage",
        (
            "database",
            "requests_per_minute",
            "tokens_per_minute",
            "parallel_requests",
            "usage_days",
            "metrics",
        ),
    ),
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
            "ping_interval",
            "ping_early",
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


def _pairs(value: object) -> object:
    """Accept "gpt-4o=qwen,gpt-4=qwen" from the environment or a flag where a table is meant."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(sign for _, sign, _ in pairs):
        raise ValueError("write ALIAS=MODEL, and commas between several")
    return {name.strip(): model.strip() for name, _, model in pairs}


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Aliases = Annotated[dict[str, str], BeforeValidator(_pairs)]
Upstreams = Annotated[tuple[Upstream, ...], BeforeValidator(from_urls)]
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
    engine: Literal["auto", "llamacpp", "transformers", "qwen_chat", "upstream", "fake"] = Field(
        "auto",
        description="what runs the model; auto: llamacpp for GGUF, else transformers; upstream: "
        "none here, only the upstreams",
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
    trusted_proxies: Names = Field(
        (), description="proxies whose X-Forwarded-For is believed: addresses or networks"
    )
    cors_origins: Names = Field(
        (), description="web pages that may call this server, as https://host; empty: none"
    )
    docs: bool = Field(True, description="serve /docs and /openapi.json")

    upstreams: Upstreams = Field(
        (), description="URLs of servers to stand in front of; a file can say more of each"
    )
    aliases: Aliases = Field(
        default_factory=dict, description="further names for models: alias=model"
    )
    connect_timeout: float = Field(5, gt=0, description="seconds to reach an upstream")
    first_token_timeout: float = Field(
        600, gt=0, description="seconds an upstream has for its first token, or a plain answer"
    )
    token_timeout: float = Field(60, gt=0, description="seconds between two tokens of an upstream")
    total_timeout: float = Field(3600, gt=0, description="seconds one answer of an upstream takes")
    upstream_attempts: int = Field(
        3, ge=1, le=10, description="upstreams tried for one request before its first byte"
    )
    affinity_gap: int = Field(
        8,
        ge=0,
        description="a conversation stays with its upstream until that is busier by so many",
    )
    probe_interval: float = Field(5, gt=0, description="seconds between looks at an upstream")
    breaker_failures: int = Field(
        3, ge=1, description="failures in a row after which an upstream is left alone for a while"
    )

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
    ping_interval: float = Field(
        15, ge=0, description="seconds of silence before a stream gets a comment; 0: never"
    )
    ping_early: bool = Field(
        False, description="send comments before the first token too; failures then come as events"
    )
    always_stream_usage: bool = Field(False, description="send the usage chunk unasked")
    reasoning_field: Literal["reasoning_content", "reasoning", "both"] = Field(
        "reasoning_content", description="the member of messages and deltas that holds thoughts"
    )
    strict_parameters: bool = Field(
        False, description="refuse parameters that have no effect, instead of ignoring them"
    )

    database: Directory | None = Field(
        None, description="file of keys and usage; empty: in the user's state folder; off: none"
    )
    requests_per_minute: int | None = Field(
        None, ge=1, description="requests a minute of all keys together; empty: any number"
    )
    tokens_per_minute: int | None = Field(
        None, ge=1, description="tokens a minute of all keys together; empty: any number"
    )
    parallel_requests: int | None = Field(
        None, ge=1, description="requests at once of all keys together; empty: any number"
    )
    usage_days: int = Field(400, ge=1, description="days that usage is kept")
    metrics: Literal["master", "open", "off"] = Field(
        "master", description="who may read /metrics: the master key, anybody, nobody"
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

    @property
    def runs_here(self) -> bool:
        """Whether this process runs a model itself: not where there are only upstreams."""
        if self.engine == "auto":
            return not self.upstreams or "model" in self.model_fields_set
        return self.engine != "upstream"

    @property
    def database_file(self) -> Path | None:
        """The file that was given; None where it was not, or is `off`."""
        return None if self.keeps_nothing else self.database

    @property
    def keeps_nothing(self) -> bool:
        """Whether there is no database: no keys but the master's, no ledger."""
        return self.database == Path("off")

    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def lets_anybody_in(self) -> bool:
        """Whether a server without any key may answer: on loopback, or where that was allowed."""
        return self.is_loopback() or self.insecure_no_auth

    def check_exposure(self, keys: int = 0) -> None:
        """Raise StartupError where other machines could reach a server that has no key to ask for.
        ``keys`` is how many good ones the database has."""
        if self.lets_anybody_in or self.api_key is not None or keys > 0:
            return
        raise StartupError(
            f"The host {self.host} can be reached from other machines and no API key is set.",
            fix="Make one with `qwen-openai keys create NAME`, set QWEN_OPENAI_API_KEY, or allow "
            "everybody in with --insecure-no-auth.",
        )
