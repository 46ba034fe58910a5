"""The gateway as `chat` sees it, through the openai SDK: which models there are, an answer in
pieces, and every failure as one sentence.
"""

from collections.abc import Generator, Sequence
from typing import cast
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletionMessageParam

from qwen_openai.cli.conversation import Turn
from qwen_openai.errors import StartupError

_PROBE_TIMEOUT = 5.0


class GatewayUnreachable(StartupError):
    """Nothing answers at the address."""


class RequestFailed(Exception):
    """The gateway refused or broke off one request; the text says why."""


def with_path(base_url: str) -> str:
    """Complete a base URL: `http://host:6006` means `http://host:6006/v1`.

    Raises StartupError for what is no HTTP URL.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise StartupError(
            f"{base_url!r} is not the URL of a server.",
            fix="Write it like http://127.0.0.1:6006/v1.",
        )
    return base_url if parts.path.strip("/") else base_url.rstrip("/") + "/v1"


class Client:
    """One gateway. ``api_key`` None sends a placeholder, which a gateway without keys ignores."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        self.base_url = with_path(base_url)
        self._openai = openai.OpenAI(base_url=self.base_url, api_key=api_key or "none")

    def model_names(self) -> list[str]:
        """What the gateway serves. Raises GatewayUnreachable, or StartupError when it refuses."""
        try:
            listed = self._openai.with_options(max_retries=0, timeout=_PROBE_TIMEOUT).models.list()
            return [model.id for model in listed.data]
        except openai.APIConnectionError:
            raise GatewayUnreachable(
                f"No gateway answers at {self.base_url}.",
                fix="Start one with `qwen-openai serve`, or name a model to run here:"
                " `qwen-openai chat qwen2.5-coder-0.5b`.",
            ) from None
        except openai.AuthenticationError:
            raise StartupError(
                f"The gateway at {self.base_url} wants another API key.",
                fix="Set QWEN_OPENAI_API_KEY to its key.",
            ) from None
        except openai.APIError as error:
            raise StartupError(
                f"The server at {self.base_url} does not answer as an OpenAI API: {_why(error)}",
                fix="Check --base-url; it usually ends in /v1.",
            ) from None

    def stream(self, model: str, messages: Sequence[Turn]) -> Generator[str, None, None]:
        """Yield the answer in pieces. Closing the generator closes the connection, which frees the
        server's slot. Raises RequestFailed."""
        try:
            with self._openai.chat.completions.create(
                model=model,
                messages=cast("list[ChatCompletionMessageParam]", list(messages)),
                stream=True,
            ) as stream:
                for chunk in stream:
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content
        except openai.APIError as error:
            raise RequestFailed(_why(error)) from None

    def close(self) -> None:
        """Close the idle connections."""
        self._openai.close()


def _why(error: openai.APIError) -> str:
    """The server's own sentence where it sent one, else the SDK's."""
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.message
