"""Facts of streamed answers: frames, identity, roles, order, endings, usage."""

import json

from qwen_openai.conformance.fact import Fact, expect
from qwen_openai.conformance.http import Json
from qwen_openai.conformance.target import Target, choices_of, member, objects, text_of

_LINGER = 1.0
_REASONS = ("stop", "length", "tool_calls", "content_filter", "function_call")


def _framing(target: Target) -> None:
    kind = target.stream_reply.headers.get("content-type", "")
    expect(kind.startswith("text/event-stream"), f"the content type is {kind!r}")
    expect(target.stream, "no chunk before [DONE]")


def _ends(target: Target) -> None:
    expect(target.stream, "no chunks")
    late = target.stream_reply.lingered
    expect(late < _LINGER, f"the body stayed open for {late:.1f} s behind [DONE]")


def _keys(target: Target) -> None:
    for chunk in target.stream:
        for name in ("id", "object", "created", "model", "choices"):
            expect(name in chunk, f"a chunk lacks {name}")
        expect(chunk["object"] == "chat.completion.chunk", f"object is {chunk['object']!r}")
    for choice in choices_of(target.stream):
        for name in ("index", "delta", "finish_reason"):
            expect(name in choice, f"a choice of a chunk lacks {name}")


def _identity(target: Target) -> None:
    for name in ("id", "created", "model"):
        values = {json.dumps(chunk.get(name)) for chunk in target.stream}
        expect(len(values) == 1, f"{name} differs between chunks: {sorted(values)[:3]}")


def _role_first(target: Target) -> None:
    first = choices_of(target.stream)[0]
    role = member(first, "delta").get("role")
    expect(role == "assistant", f"the first delta's role is {role!r}")


def _role_once(target: Target) -> None:
    roles = [d for c in choices_of(target.stream) if (d := member(c, "delta").get("role"))]
    expect(len(roles) == 1, f"the role came {len(roles)} times; accumulators concatenate it")


def _finish_once(target: Target) -> None:
    choices = choices_of(target.stream)
    reasons = [c["finish_reason"] for c in choices if c.get("finish_reason")]
    expect(len(reasons) == 1, f"finish_reason came {len(reasons)} times")
    expect(reasons[0] in _REASONS, f"finish_reason is {reasons[0]!r}")
    expect(choices[-1].get("finish_reason"), "a delta came behind the finish_reason")


def _usage_unasked(target: Target) -> None:
    found = [chunk for chunk in target.stream if chunk.get("usage")]
    expect(not found, f"{len(found)} chunks hold usage that nobody asked for")


def _usage_last(target: Target) -> None:
    chunks = target.counted
    holding = [n for n, chunk in enumerate(chunks) if chunk.get("usage")]
    expect(holding == [len(chunks) - 1], f"usage stands in chunks {holding} of {len(chunks)}")
    expect(chunks[-1].get("choices") == [], "the usage chunk's choices are not empty")
    _adds_up(member(chunks[-1], "usage"))


def _adds_up(usage: Json) -> None:
    prompt, completion, total = (
        usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    sound = isinstance(prompt, int) and isinstance(completion, int) and prompt > 0
    expect(sound and total == prompt + completion, f"usage does not add up: {usage}")  # type: ignore[operator]  # `sound` says that both are int


def _usage_null(target: Target) -> None:
    lacking = [chunk for chunk in target.counted[:-1] if "usage" not in chunk]
    expect(not lacking, f"{len(lacking)} chunks have no usage key; the specification says null")


def _several(target: Target) -> None:
    chunks = target.chunks(n=2, max_tokens=6, temperature=1)
    seen: list[object] = []
    for choice in choices_of(chunks):
        if choice.get("index") not in seen:
            seen.append(choice.get("index"))
    expect(seen == [0, 1], f"choices began in the order {seen}; the SDK's accumulator needs [0, 1]")
    ended = {c.get("index") for c in choices_of(chunks) if c.get("finish_reason")}
    expect(ended == {0, 1}, f"only the choices {ended} were finished")


def _utf8(target: Target) -> None:
    question = [{"role": "user", "content": "Repeat exactly: 🦜🦙 你好，世界 👩‍👩‍👧"}]
    for limit in (1, 2, 3, 5):
        text = text_of(target.chunks(messages=question, max_tokens=limit))
        expect("\ufffd" not in text, f"half a character was sent: {text!r}")


def _refused(target: Target) -> None:
    reply = target.ask(model="no-such-model-anywhere", stream=True)
    expect(reply.status == 404, f"the status is {reply.status}, not 404")
    expect(reply.headers.get("content-type", "").startswith("application/json"), "no JSON body")


def _logprobs(target: Target) -> None:
    chunks = target.chunks(logprobs=True, top_logprobs=2, max_tokens=6)
    spelled = bytearray()
    for choice in choices_of(chunks):
        given = choice.get("logprobs")
        if given is not None:
            expect(isinstance(given, dict), "logprobs is no object")
            for entry in objects(member(choice, "logprobs").get("content") or [], "content"):
                spelled += bytes(entry.get("bytes") or ())  # type: ignore[call-overload]  # JSON
    text = text_of(chunks)
    expect(
        bytes(spelled).startswith(text.encode()),
        f"the bytes of the logprobs spell {bytes(spelled)!r}, the text is {text!r}",
    )


FACTS = (
    Fact("stream.framing", "Events are data lines, the last one [DONE].", _framing),
    Fact("stream.ends", "The body ends right behind [DONE].", _ends),
    Fact("stream.keys", "Every chunk and choice has the required members.", _keys),
    Fact("stream.identity", "id, created and model are the same in all chunks.", _identity),
    Fact("stream.role-first", "The first delta says role assistant.", _role_first),
    Fact("stream.role-once", "The role is in one delta of a choice.", _role_once),
    Fact("stream.finish-once", "finish_reason is in the last delta of a choice.", _finish_once),
    Fact("stream.usage-unasked", "Without include_usage no chunk has usage.", _usage_unasked),
    Fact("stream.usage-last", "With it, one last chunk has it, without choices.", _usage_last),
    Fact("stream.usage-null", "All other chunks then say usage: null.", _usage_null),
    Fact("stream.choices", "n=2: choices begin in order, both are finished.", _several),
    Fact("stream.utf8", "No character is sent in halves, wherever it is cut.", _utf8),
    Fact("stream.refused", "A request that is refused gets its status, not a 200.", _refused),
    Fact("stream.logprobs", "Streamed logprobs spell the streamed text.", _logprobs),
)
