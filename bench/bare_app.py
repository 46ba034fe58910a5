"""The baseline of `bench.overhead`: uvicorn and an ASGI application that does nothing."""

import sys

import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

_PLAIN = orjson.dumps({"choices": [{"message": {"content": "x" * 60}}], "padding": "x" * 500})
_EVENT = b"data: " + orjson.dumps({"padding": "x" * 150, "content": "word "}) + b"\n\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    body = b""
    more = scope["method"] == "POST"
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    if b'"stream":true' not in body:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_PLAIN))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _PLAIN})
        return
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(1000):
        await send({"type": "http.response.body", "body": _EVENT, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        access_log=False,
        log_level="error",
        lifespan="off",
    )
