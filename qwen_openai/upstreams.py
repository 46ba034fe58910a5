"""What an operator says of the servers behind the gateway: a frozen value for each.

Read by `settings`, used by `gateway.pool` and `engines.upstream`; knows neither.
"""

import os
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

# What a server is known to do with our requests; auto: found out from what it says of itself.
Kind = Literal["auto", "vllm", "sglang", "llamacpp", "openai"]


def _base(url: str) -> str:
    """Bring a URL into the one form that is used: with /v1, without a slash at the end."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an upstream's url is like http://10.0.0.7:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an upstream's url has no user, query or fragment; a key goes to api_key")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _named(models: object) -> object:
    """Accept a list of names for the names that stay as they are."""
    if isinstance(models, list | tuple) and all(isinstance(each, str) for each in models):
        return {name: name for name in models}
    return models


class Upstream(BaseModel):
    """One server that speaks OpenAI's API."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(_base)] = Field(description="its base URL")
    name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.:-]{0,64}$",
        description="what logs, metrics and x-gateway-upstream call it; empty: made of the url",
    )
    models: Annotated[Mapping[str, str], BeforeValidator(_named)] = Field(
        default_factory=dict,
        description="names that clients use, and what the server calls them; empty: asked of it",
    )
    kind: Kind = Field("auto", description="what the server is")
    api_key: SecretStr | None = Field(None, description="the Bearer key that it asks for")
    api_key_env: str | None = Field(None, description="the variable that holds that key instead")
    weight: float = Field(1, gt=0, le=1000, description="its share of the work beside others")
    max_parallel: int = Field(256, ge=1, le=10_000, description="answers it makes at once")

    @property
    def label(self) -> str:
        """Its name, or one that is the same for the same URL and does not tell it: callers see it,
        and where the servers behind the door are is not theirs to know."""
        return self.name or f"upstream-{blake2b(self.url.encode(), digest_size=3).hexdigest()}"

    @property
    def place(self) -> str:
        """Host and port, for the operator."""
        return urlsplit(self.url).netloc

    def key(self) -> str | None:
        """Return the key to send, None for none."""
        if self.api_key is not None:
            key: str | None = self.api_key.get_secret_value()
        else:
            key = os.environ.get(self.api_key_env) if self.api_key_env else None
        # What comes from a file has a line end, which no header may have.
        return key.strip() or None if key else None


def from_urls(value: object) -> object:
    """Accept "http://a:8000,http://b:8000" where a list of upstreams is meant, from the environment
    or a flag, and a list of URLs, from a file."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list):
        return [{"url": each} if isinstance(each, str) else each for each in value]
    return value
