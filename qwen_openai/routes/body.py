"""Reading a request body: media type, size and time are checked while it comes in, never after."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from qwen_openai.errors import PayloadTooLarge, RequestTimeout, UnsupportedMediaType
from qwen_openai.routes.disconnect import ClientLeft
from qwen_openai.settings import Settings

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


async def read_json_bytes(
    scope: Scope, receive: Receive, settings: Settings, *, accept_form: bool = False
) -> bytes:
    """Return the whole body of a JSON request.

    ``accept_form`` also takes what ``curl -d`` sends when no type is given, except from a browser
    page (which always names its origin there, and could otherwise post across sites unasked).

    Raises UnsupportedMediaType, PayloadTooLarge, RequestTimeout; ClientLeft when nobody is left.
    """
    headers = Headers(scope=scope)
    _check_type(headers, accept_form=accept_form)
    limit = settings.max_body_bytes
    declared = headers.get("content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(settings.body_timeout):
            return await _read(receive, limit)
    except TimeoutError:
        raise RequestTimeout(
            f"The request body did not arrive within {settings.body_timeout:g} seconds. "
            "Send the request again."
        ) from None


async def _read(receive: Receive, limit: int) -> bytes:
    first = await receive()
    if first["type"] == "http.disconnect":
        raise ClientLeft
    body: bytes = first.get("body", b"")
    if len(body) > limit:
        raise _too_large(limit)
    if not first.get("more_body", False):
        return body
    parts = bytearray(body)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        parts += message.get("body", b"")
        if len(parts) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return bytes(parts)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body is larger than {limit} bytes, the most that this server accepts. "
        "Send a shorter conversation."
    )


def _check_type(headers: Headers, *, accept_form: bool) -> None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(
            "Content-Encoding is not supported here. Send the JSON body uncompressed."
        )
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == _JSON:
        return
    # A page of another site may send other types, and none, without asking; it cannot hide that
    # it is a page.
    from_page = "origin" in headers or "sec-fetch-site" in headers
    if not from_page and (media_type == "" or (accept_form and media_type == _FORM)):
        return
    raise UnsupportedMediaType(
        "The Content-Type is not supported. Send JSON with 'Content-Type: application/json'."
    )
