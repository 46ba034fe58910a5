"""Facts of errors: what a client gets for a mistake of its own, and the headers on everything."""

from qwen_openai.conformance.fact import Fact, expect
from qwen_openai.conformance.http import Json, Reply
from qwen_openai.conformance.target import CHAT, GREETING, Target, applicable, member

# More than the longest context in use, as single words.
_WORDS = 150_000


def _error(reply: Reply, status: int) -> Json:
    expect(reply.status == status, f"the status is {reply.status}, not {status}")
    return member(reply.json(), "error")


def _shape(target: Target) -> None:
    error = _error(target.refusal, 404)
    for name in ("message", "type", "param", "code"):
        expect(name in error, f"error lacks {name}")
    expect(isinstance(error["message"], str) and error["message"], "error.message is no text")
    code = error["code"]
    expect(code is None or isinstance(code, str), f"error.code is {code!r}, not a string")


def _model(target: Target) -> None:
    code = _error(target.refusal, 404).get("code")
    expect(code == "model_not_found", f"error.code is {code!r}")


def _named(name: str, value: object) -> Fact:
    def holds(target: Target) -> None:
        error = _error(target.ask(**{name: value}), 400)
        param = str(error.get("param") or "")
        said = param.startswith(name) or name in str(error.get("message"))
        expect(said, f"the error does not name {name}: {error}")

    return Fact(f"error.{name}", f"{name}: {value!r} is a 400 that names it.", holds)


def _raw(name: str, says: str, body: bytes) -> Fact:
    def holds(target: Target) -> None:
        _error(target.http.post(CHAT, body.replace(b"MODEL", target.model.encode())), 400)

    return Fact(f"error.{name}", says, holds)


def _no_messages(target: Target) -> None:
    _error(target.ask(messages=[]), 400)


def _schema(target: Target) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True}}
    _error(target.ask(response_format=wanted), 400)


def _unusable(target: Target) -> None:
    schema = {"type": "string", "pattern": "("}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    reply = target.ask(response_format=wanted, stream=True)
    expect(reply.status == 400, f"a schema that cannot be kept got {reply.status}")


def _context(target: Target) -> None:
    messages = [{"role": "user", "content": "word " * _WORDS}]
    reply = target.ask(messages=messages, max_tokens=1)
    applicable(reply.status != 200, f"the context holds {_WORDS} words")
    error = _error(reply, 400)
    code = error.get("code")
    expect(code == "context_length_exceeded", f"error.code is {code!r}")


def _key(target: Target) -> None:
    applicable(target.key, "no key is in use")
    code = _error(target.http.get("/models", key="wrong"), 401).get("code")
    expect(code == "invalid_api_key", f"error.code is {code!r}")


def _request_id(target: Target) -> None:
    for what, reply in (
        ("an answer", target.plain_reply),
        ("a stream", target.stream_reply),
        ("an error", target.refusal),
    ):
        expect(reply.headers.get("x-request-id"), f"{what} has no x-request-id")


def _healthy(target: Target) -> None:
    body = target.answer(messages=GREETING, max_tokens=1)
    expect(body.get("choices"), "after the refusals above nothing is answered")


FACTS = (
    Fact("error.shape", "An error is an object with its four members.", _shape),
    Fact("error.model", "An unknown model is 404 model_not_found.", _model),
    _named("temperature", 2.5),
    _named("top_p", "high"),
    _named("n", 0),
    _named("max_tokens", -1),
    _named("stream_options", {"include_usage": True}),
    _named("tool_choice", "required"),
    _named("top_logprobs", 21),
    Fact("error.messages", "No messages are a 400.", _no_messages),
    _raw("json", "What is no JSON is a 400.", b'{"model": "MODEL", '),
    _raw("object", "A body that is no object is a 400.", b"[]"),
    _raw(
        "nan",
        "NaN is a 400.",
        b'{"model":"MODEL","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    ),
    _raw(
        "surrogate",
        "A lone surrogate is a 400.",
        b'{"model":"MODEL","messages":[{"role":"user","content":"\\ud800"}]}',
    ),
    Fact("error.schema-missing", "json_schema without a schema is a 400.", _schema),
    Fact("error.schema-unusable", "A schema that cannot be kept is a 400, not a 200.", _unusable),
    Fact("error.context", "Too long a prompt is 400 context_length_exceeded.", _context),
    Fact("error.key", "A wrong key is 401 invalid_api_key.", _key),
    Fact("headers.request-id", "Every response has an x-request-id.", _request_id),
    Fact("error.healthy", "After all this the server still answers.", _healthy),
)
