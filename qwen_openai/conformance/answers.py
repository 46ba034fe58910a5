"""Facts of plain answers: their shape, their limits, formats, models, the older completions."""

import json

from qwen_openai.conformance.fact import Fact, Failed, expect
from qwen_openai.conformance.http import Json
from qwen_openai.conformance.target import (
    GREETING,
    Target,
    applicable,
    first_choice,
    member,
    message,
    objects,
)

_PERSON: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "kind": {"type": "string", "enum": ["cat", "dog"]},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
}
_PET = [{"role": "user", "content": "Invent a pet. Answer as JSON with name and kind."}]


def _shape(target: Target) -> None:
    for name in ("id", "object", "created", "model", "choices", "usage"):
        expect(name in target.plain, f"the body lacks {name}")
    expect(target.plain["object"] == "chat.completion", f"object is {target.plain['object']!r}")
    choice = first_choice(target.plain)
    for name in ("index", "message", "finish_reason", "logprobs"):
        expect(name in choice, f"the choice lacks {name}")
    for name in ("role", "content", "refusal"):
        expect(name in message(target.plain), f"the message lacks {name}")


def _type(target: Target) -> None:
    kind = target.plain_reply.headers.get("content-type", "")
    expect(kind.partition(";")[0].strip().endswith("json"), f"the content type is {kind!r}")


def _usage(target: Target) -> None:
    usage = member(target.plain, "usage")
    counts = [usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total")]
    whole = all(isinstance(count, int) and count > 0 for count in counts)
    expect(whole and counts[0] + counts[1] == counts[2], f"usage does not add up: {usage}")  # type: ignore[operator]  # `whole` says so


def _length(target: Target) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        body = target.answer(**{"max_tokens": None, name: 2})
        reason = first_choice(body).get("finish_reason")
        expect(reason == "length", f"{name} 2: finish_reason is {reason!r}, not 'length'")
        made = member(body, "usage").get("completion_tokens")
        expect(made == 2, f"{name} 2 gave {made} tokens")


def _stop(target: Target) -> None:
    question = [{"role": "user", "content": "Count from one to six in words."}]
    text = message(target.answer(messages=question)).get("content") or ""
    words = str(text).split()
    applicable(len(words) > 2, "the model's answer was too short to be stopped")
    body = target.answer(messages=question, stop=[words[2]])
    stopped = str(message(body).get("content") or "")
    expect(words[2] not in stopped, f"the stop string {words[2]!r} is in {stopped!r}")
    reason = first_choice(body).get("finish_reason")
    expect(reason == "stop", f"finish_reason is {reason!r}")


def _several(target: Target) -> None:
    choices = objects(target.answer(n=2, max_tokens=4, temperature=1).get("choices"), "choices")
    expect([c.get("index") for c in choices] == [0, 1], f"n=2 gave {len(choices)} choices")


def _logprobs(target: Target) -> None:
    choice = first_choice(target.answer(logprobs=True, top_logprobs=3, max_tokens=4))
    given = member(choice, "logprobs")
    expect("refusal" in given, "logprobs lacks refusal")
    entries = objects(given.get("content"), "logprobs.content")
    expect(entries, "logprobs.content is empty")
    for entry in entries:
        for name in ("token", "logprob", "bytes", "top_logprobs"):
            expect(name in entry, f"an entry lacks {name}")
        top = objects(entry["top_logprobs"], "top_logprobs")
        expect(len(top) == 3, f"top_logprobs 3 gave {len(top)}")
        expect(float(str(entry["logprob"])) <= 1e-6, "a logprob is above 0")


def _parts(target: Target) -> None:
    parts = [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello."}]
    target.answer(messages=[{"role": "user", "content": parts}])


def _developer(target: Target) -> None:
    target.answer(messages=[{"role": "developer", "content": "Be brief."}, *GREETING])


def _json_object(target: Target) -> None:
    body = target.answer(
        messages=_PET, response_format={"type": "json_object"}, max_tokens=200, temperature=0
    )
    _parsed(body)


def _json_schema(target: Target) -> None:
    schema = {"name": "pet", "strict": True, "schema": _PERSON}
    wanted = {"type": "json_schema", "json_schema": schema}
    for temperature in (0, 1):
        pet = _parsed(
            target.answer(
                messages=_PET, response_format=wanted, max_tokens=120, temperature=temperature
            )
        )
        expect(set(pet) == {"name", "kind"}, f"the answer has the members {sorted(pet)}")
        expect(pet["kind"] in ("cat", "dog"), f"kind is {pet['kind']!r}, which the enum has not")


def _parsed(body: Json) -> Json:
    applicable(first_choice(body).get("finish_reason") != "length", "the answer was cut")
    content = message(body).get("content")
    try:
        value = json.loads(str(content))
    except ValueError:
        raise Failed(f"the content is no JSON: {str(content)[:80]!r}") from None
    if not isinstance(value, dict):
        raise Failed(f"the content is no object: {str(content)[:80]!r}")
    return value


def _list(target: Target) -> None:
    body = target.http.get("/models").json()
    expect(body.get("object") == "list", "object is not 'list'")
    for model in objects(body.get("data"), "data"):
        for name in ("id", "object", "created", "owned_by"):
            expect(name in model, f"a model lacks {name}")


def _retrieve(target: Target) -> None:
    reply = target.http.get("/models/" + target.model.replace("/", "%2F"))
    expect(reply.status == 200, f"GET /models/{{id}} gave {reply.status}")
    expect(reply.json().get("id") == target.model, "another id came back")


def _no_such_model(target: Target) -> None:
    reply = target.http.get("/models/No%2FSuch-Model")
    expect(reply.status == 404, f"the status is {reply.status}")
    error = reply.json().get("error")
    expect(isinstance(error, dict), "the 404 has no error object")


def _completions(target: Target) -> None:
    asked = {
        "model": target.model, "prompt": "one, two, three,", "max_tokens": 4, "logprobs": 1,
    }  # fmt: skip
    reply = target.http.post("/completions", asked)
    expect(reply.status == 200, f"status {reply.status}: {reply.body[:120]!r}")
    body = reply.json()
    expect(body.get("object") == "text_completion", f"object is {body.get('object')!r}")
    choice = first_choice(body)
    expect(isinstance(choice.get("text"), str), "the choice has no text")
    given = member(choice, "logprobs")
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        expect(isinstance(given.get(name), list), f"logprobs.{name} is no list")


def _completion_chunks(target: Target) -> None:
    asked = {"model": target.model, "prompt": "one, two,", "max_tokens": 4, "stream": True}
    chunks = target.http.post("/completions", asked).events()
    kinds = {str(chunk.get("object")) for chunk in chunks}
    expect(kinds == {"text_completion"}, f"the chunks' object is {sorted(kinds)}")


FACTS = (
    Fact("answer.shape", "The body has every required member.", _shape),
    Fact("answer.content-type", "The content type ends in json.", _type),
    Fact("answer.usage", "usage is there and adds up.", _usage),
    Fact("answer.length", "Both token limits are exact and finish with length.", _length),
    Fact("answer.stop", "A stop string ends the answer and is not in it.", _stop),
    Fact("answer.choices", "n=2 gives two choices.", _several),
    Fact("answer.logprobs", "logprobs have bytes, top_logprobs and refusal.", _logprobs),
    Fact("answer.parts", "Content may be a list of text parts.", _parts),
    Fact("answer.developer", "The role developer is taken.", _developer),
    Fact("format.json-object", "json_object gives an object.", _json_object),
    Fact("format.json-schema", "json_schema is kept, also when sampling.", _json_schema),
    Fact("models.list", "The list of models has the required members.", _list),
    Fact("models.retrieve", "A model's own id, encoded, finds it.", _retrieve),
    Fact("models.unknown", "An unknown id with a slash is a 404 with an error.", _no_such_model),
    Fact("completions.shape", "/completions answers in the older shape.", _completions),
    Fact("completions.chunks", "Its chunks are text_completion too.", _completion_chunks),
)
