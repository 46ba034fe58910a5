"""Requests to a server as bytes, and its answers as they are: nothing is mended on the way.

The standard library's client, since the SDK's would hide what is looked for. Knows HTTP and
server-sent events, no facts.
"""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from qwen_openai.conformance.fact import Failed, expect

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Reply:
    """A response read to its end. ``lingered`` is the seconds from the end of the last event's
    bytes to the end of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    lingered: float = 0.0

    def json(self) -> Json:
        """The body as an object. Raises Failed."""
        try:
            value = json.loads(self.body)
        except ValueError:
            raise Failed(
                f"status {self.status} with a body that is no JSON: {_start(self.body)}"
            ) from None
        expect(isinstance(value, dict), f"the body is no object: {_start(self.body)}")
        found: Json = value
        return found

    def events(self) -> list[Json]:
        """The chunks of a stream that ends as it should. Raises Failed."""
        expect(self.status == 200, f"status {self.status}: {_start(self.body)}")
        try:
            text = self.body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Failed(f"the stream is no UTF-8 at byte {error.start}") from None
        data = [_data(block) for block in text.replace("\r\n", "\n").split("\n\n")]
        lines = [line for line in data if line is not None]
        expect(lines and lines[-1] == "[DONE]", "the stream does not end with data: [DONE]")
        chunks: list[Json] = []
        for line in lines[:-1]:
            try:
                chunk = json.loads(line)
            except ValueError:
                raise Failed(f"an event's data is no JSON: {line[:80]!r}") from None
            expect(isinstance(chunk, dict), f"an event's data is no object: {line[:80]!r}")
            expect(not chunk.get("error"), f"an error in the stream: {line[:200]}")
            chunks.append(chunk)
        return chunks


def _data(block: str) -> str | None:
    """An event's data; None for comments and blanks."""
    lines = [line for line in block.split("\n") if line and not line.startswith(":")]
    if not lines:
        return None
    fields = [line.partition(":") for line in lines]
    return "\n".join(value.removeprefix(" ") for name, _, value in fields if name == "data")


def _start(body: bytes) -> str:
    return repr(body[:120].decode("utf-8", "replace"))


class Http:
    """One server. ``base_url`` ends where the paths of the API begin, as the SDK takes it."""

    def __init__(self, base_url: str, key: str | None, timeout: float) -> None:
        """``timeout`` is seconds without a byte."""
        parts = urlsplit(base_url)
        self._secure = parts.scheme == "https"
        self._host = parts.netloc.rpartition("@")[2]
        self._path = parts.path.rstrip("/")
        self._key = key
        self._timeout = timeout

    def post(self, path: str, body: object) -> Reply:
        """Post a body: bytes as they are, else as JSON. Raises OSError."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, content)

    def get(self, path: str, key: str | None = None) -> Reply:
        """Get a path, with another key where one is given. Raises OSError."""
        return self.request("GET", path, key=key)

    def request(
        self, method: str, path: str, content: bytes | None = None, *, key: str | None = None
    ) -> Reply:
        """One request on a connection of its own. Raises OSError and http.client.HTTPException."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, timeout=self._timeout)
        headers = {"accept": "*/*"}
        if content is not None:
            headers["content-type"] = "application/json"
        used = key if key is not None else self._key
        if used is not None:
            headers["authorization"] = f"Bearer {used}"
        try:
            connection.request(method, self._path + path, content, headers)
            response = connection.getresponse()
            body, lingered = _read(response)
            sent = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, sent, body, lingered)
        finally:
            connection.close()


def _read(response: http.client.HTTPResponse) -> tuple[bytes, float]:
    body = bytearray()
    last = time.monotonic()
    while piece := response.read1(65536):
        body += piece
        last = time.monotonic()
    return bytes(body), time.monotonic() - last
