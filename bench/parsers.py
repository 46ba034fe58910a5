"""What parsing and rendering cost a token: `python -m bench.parsers [--tokens 3000] [--repeat 5]`.

One reply, in pieces as long as tokens, through the parser chain of several jobs and through the
renderer of chat completions: microseconds of CPU a token, and the ratio to writing one constant
chunk as an event of a stream, which no server can leave out. The whole chain is to stay below 20.
"""

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.load import machine
from qwen_openai.core import (
    Event,
    Finish,
    Job,
    Sampling,
    Started,
    Text,
    TokenLogprob,
    Tool,
    ToolCallStart,
)
from qwen_openai.grammars import build
from qwen_openai.grammars.guard import Guard
from qwen_openai.parsing.chain import AnswerGuard, Chain
from qwen_openai.responses.chat import ChatReply, Wanted
from qwen_openai.sse import frame

_AIM = 20.0
_TOKEN = re.compile(r"</?\w+>|\s?\w{1,7}|\s*[^\w\s]{1,2}|\s+")
_PROSE = "The weather in Paris is mild, with some sun; it may rain (a little) by the evening. "
_TOOL = Tool("get_weather", "Tell it.", {"type": "object", "properties": {"s": {"type": "string"}}})

_PLAIN = Job("x", "m", ())
_STOPS = replace(_PLAIN, sampling=Sampling(stop=("STOP", "\n\n\n", "The end", "</s>")))
_HERMES = replace(_STOPS, tools=(_TOOL,), tool_syntax="hermes")
_WHOLE = replace(_HERMES, thinks=True)
_LOGPROBS = replace(_WHOLE, sampling=replace(_STOPS.sampling, logprobs=0))
_XML = replace(_WHOLE, tool_syntax="xml")
_BARE = replace(_WHOLE, bare_calls=True)


def _said(length: int) -> str:
    return (_PROSE * (length // len(_PROSE) + 1))[:length].rstrip()


def _reply(job: Job, tokens: int) -> str:
    """A reply of about so many tokens: a quarter thoughts, a quarter text, the rest one call."""
    part = tokens * 3 // 2
    arguments = json.dumps({"s": _said(part * 2)})
    bare = f'{{"name": "get_weather", "arguments": {arguments}}}'
    call = f"<tool_call>\n{bare}\n</tool_call>"
    if job.tool_syntax is None:
        call = _said(part * 2)
    elif job.tool_syntax == "xml":
        call = (
            f"<function=get_weather>\n<parameter=s>\n{_said(part * 2)}\n</parameter>\n</function>"
        )
        call = f"<tool_call>\n{call}\n</tool_call>"
    elif job.bare_calls:
        return f"<think>\n{_said(part * 2)}\n</think>\n\n{bare}"
    thoughts = f"<think>\n{_said(part)}\n</think>\n\n" if job.thinks else _said(part)
    return f"{thoughts}{_said(part)}\n{call}"


def _events(job: Job, tokens: int) -> list[Event]:
    pieces = _TOKEN.findall(_reply(job, tokens))
    wanted = job.sampling.logprobs is not None
    texts = [
        Text(0, piece, 1, (TokenLogprob(piece, piece.encode(), -0.5),) if wanted else ())
        for piece in pieces
    ]
    return [Started(0, 100), *texts, Finish(0, "stop", len(texts))]


def _through(
    job: Job, events: Sequence[Event], guard: AnswerGuard | None
) -> tuple[float, list[Event]]:
    """Seconds for one reply, and what came out."""
    chain, out = Chain(job, guard), list[Event]()
    begun = time.process_time()
    for event in events:
        out += chain.feed(event)
    return time.process_time() - begun, out


def _rendered(events: Sequence[Event], logprobs: bool) -> float:
    """Seconds for all chunks of a reply, as bytes."""
    reply = ChatReply(
        id="chatcmpl-0",
        model="qwen",
        created=0,
        system_fingerprint="fp_0",
        wanted=Wanted(1, logprobs=logprobs),
    )
    begun = time.process_time()
    for event in events:
        for chunk in reply.chunks(event):
            frame(chunk)
    return time.process_time() - begun


def _constant(events: Sequence[Event]) -> float:
    choice = {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}
    chunk = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "qwen"}
    begun = time.process_time()
    for _ in events:
        frame({**chunk, "choices": [choice]})
    return time.process_time() - begun


def _guard() -> Guard:
    return Guard(build.calls((_TOOL,), "hermes", required=False, parallel=True))


def _chain(job: Job, tokens: int, *, guarded: bool = False) -> tuple[int, Callable[[], float]]:
    events = _events(job, tokens)
    calls = [each for each in _through(job, events, None)[1] if isinstance(each, ToolCallStart)]
    if len(calls) != (job.tool_syntax is not None):
        raise SystemExit("the reply was not read as it was meant: this measures nothing")
    return len(events), lambda: _through(job, events, _guard() if guarded else None)[0]


def _renderer(job: Job, tokens: int) -> tuple[int, Callable[[], float]]:
    events = _events(job, tokens)
    out = _through(job, events, None)[1]
    return len(events), lambda: _rendered(out, job.sampling.logprobs is not None)


def _cases(tokens: int) -> dict[str, tuple[int, Callable[[], float]]]:
    plain = _events(_PLAIN, tokens)
    return {
        "one constant chunk": (len(plain), lambda: _constant(plain)),
        "chain: nothing to do": _chain(_PLAIN, tokens),
        "chain: stop strings": _chain(_STOPS, tokens),
        "chain: stop strings, hermes": _chain(_HERMES, tokens),
        "chain: thoughts, stop strings, hermes": _chain(_WHOLE, tokens),
        "chain: thoughts, stop strings, xml": _chain(_XML, tokens),
        "chain: thoughts, stop strings, bare": _chain(_BARE, tokens),
        "chain: thoughts, guard, stop strings, hermes": _chain(_WHOLE, tokens, guarded=True),
        "chain: the same with log probabilities": _chain(_LOGPROBS, tokens, guarded=True),
        "renderer: chat chunks": _renderer(_WHOLE, tokens),
        "renderer: chat chunks with log probabilities": _renderer(_LOGPROBS, tokens),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    if os.getloadavg()[0] > 1:
        print("warning: the machine is busy; absolute figures will be high")
    cases = _cases(options.tokens)
    costs: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in range(options.repeat + 1):
        for name, (count, run) in cases.items():
            seconds = run()
            if round_number:
                costs[name].append(seconds / count * 1e6)
    medians = {name: statistics.median(values) for name, values in costs.items()}
    base, *_ = medians.values()
    for name, cost in medians.items():
        print(f"{name:<46} {cost:6.2f} µs a token, ratio {cost / base:5.2f}")
    whole = max(cost for name, cost in medians.items() if name.startswith("chain"))
    print(f"the dearest chain takes {whole:.2f} µs a token; the aim is {_AIM:.0f}")


if __name__ == "__main__":
    main()
