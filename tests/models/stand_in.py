"""A stand-in on loopback for ModelScope, and for a package index, with a record of what it sent.

ModelScope's paths as in `modelscope_hub._legacy_api`: `/api/v1/models/ORG/NAME/repo/files` lists,
`…/repo` with `FilePath` delivers, with ranges. The index's as in the simple repository API.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import SplitResult, parse_qs, urlsplit

_STEP = 64 * 1024


@dataclass
class Sent:
    """One delivery: where it began, and how many bytes went out."""

    file: str
    begin: int
    count: int = 0


@dataclass
class StandIn:
    """``repositories``: id → revision → file → content; ``wheels``: file name → content.

    With ``hold_after`` set, a delivery of a file whose name contains ``hold`` stops after so many
    bytes until ``go_on`` is set. ``listing`` replaces the true one.
    """

    url: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    wheels: dict[str, bytes] = field(default_factory=dict)
    listing: list[dict[str, object]] | None = None
    hold: str = ""
    hold_after: int | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    sent: list[Sent] = field(default_factory=list)
    listed: int = 0

    def files(self, repository: str, revision: str) -> dict[str, bytes] | None:
        return self.repositories.get(repository, {}).get(revision)


@contextmanager
def serve() -> Iterator[StandIn]:
    """Run the stand-in until the block ends."""
    state = StandIn()

    class Handler(_Handler):
        stand_in = state

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield state
        finally:
            state.go_on.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.startswith("/simple/"):
            self._index(parts.path.removeprefix("/simple/").strip("/"))
        elif parts.path.startswith("/wheels/"):
            self._deliver(parts.path.removeprefix("/wheels/"), self.stand_in.wheels)
        else:
            self._hub(parts)

    def _index(self, project: str) -> None:
        module = project.replace("-", "_")
        links = "".join(
            f'<a href="/wheels/{name}">{name}</a>'
            for name in self.stand_in.wheels
            if name.startswith(f"{module}-")
        )
        self._answer(200, "text/html", f"<!DOCTYPE html><body>{links}</body>".encode())

    def _hub(self, parts: SplitResult) -> None:
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        match = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?", parts.path)
        files = match and self.stand_in.files(match[1], query.get("Revision", "master"))
        if match is None or files is None:
            self._json(404, {"Code": 404, "Message": "no such repository", "Success": False})
        elif match[2]:
            self._list(files)
        else:
            self._deliver(query["FilePath"], files)

    def _list(self, files: dict[str, bytes]) -> None:
        self.stand_in.listed += 1
        listing = self.stand_in.listing or [
            {
                "Path": name,
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
                "Type": "blob",
            }
            for name, content in files.items()
        ]
        self._json(200, {"Code": 200, "Data": {"Files": listing}, "Success": True})

    def _deliver(self, name: str, files: dict[str, bytes]) -> None:
        content = files.get(name)
        if content is None:
            self._json(404, {"Code": 404, "Message": "no such file", "Success": False})
            return
        ranged = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(ranged[1]) if ranged else 0
        self.send_response(206 if ranged else 200)
        if ranged:
            total = len(content)
            self.send_header("Content-Range", f"bytes {begin}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        sent = Sent(name, begin)
        self.stand_in.sent.append(sent)
        self._send(content[begin:], sent)

    def _send(self, content: bytes, sent: Sent) -> None:
        for at in range(0, len(content), _STEP):
            hold = self.stand_in.hold_after
            if hold is not None and at >= hold and self.stand_in.hold in sent.file:
                self.wfile.flush()
                self.stand_in.go_on.wait()
            try:
                self.wfile.write(content[at : at + _STEP])
            except OSError:
                self.close_connection = True
                return
            sent.count += len(content[at : at + _STEP])

    def _json(self, status: int, body: object) -> None:
        self._answer(status, "application/json", json.dumps(body).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
