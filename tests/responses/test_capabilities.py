"""What a server can do, as data: the matrix, as it is for the model that runs."""

import json
from dataclasses import replace

from qwen_openai.families import Family, family_named
from qwen_openai.protocol.parameters import PARAMETERS
from qwen_openai.responses.capabilities import capabilities_body

PLAIN = replace(family_named("qwen2"), tools=None, thinking="never")


def body(family: Family, *, refuses: frozenset[str] = frozenset()) -> dict[str, object]:
    made = capabilities_body(
        model="m",
        engine="fake",
        context=4096,
        family=family,
        refuses=refuses,
        endpoints=["POST /v1/chat/completions"],
    )
    wire = json.loads(json.dumps(made))
    assert isinstance(wire, dict)
    return wire


def support(family: Family, *, refuses: frozenset[str] = frozenset()) -> dict[str, str]:
    rows = body(family, refuses=refuses)["parameters"]
    assert isinstance(rows, list)
    for row in rows:
        assert row.keys() == {"name", "support", "accepts", "note", "harmless", "instead"}
    return {row["name"]: row["support"] for row in rows}


def test_every_parameter_once() -> None:
    uses = support(PLAIN)
    assert uses.keys() == PARAMETERS.keys()
    assert set(uses.values()) == {"honoured", "ignored", "refused"}
    assert uses["api_key"] == "refused"
    assert uses["temperature"] == "honoured"
    assert uses["user"] == "ignored"


def test_what_the_model_cannot_do() -> None:
    plain, able = support(PLAIN), support(family_named("qwen3"))
    assert (plain["tools"], able["tools"]) == ("refused", "honoured")
    assert (plain["parallel_tool_calls"], able["parallel_tool_calls"]) == ("ignored", "honoured")
    assert (plain["reasoning_effort"], able["reasoning_effort"]) == ("ignored", "honoured")


def test_what_the_engine_cannot_do() -> None:
    assert support(PLAIN, refuses=frozenset(("min_tokens",)))["min_tokens"] == "refused"


def test_what_is_told_of_the_model() -> None:
    plain = body(PLAIN)
    assert plain["object"] == "capabilities"
    assert (plain["model"], plain["engine"], plain["context"]) == ("m", "fake", 4096)
    assert (plain["tools"], plain["thinking"], plain["fill_in"]) == (None, "never", False)
    assert plain["endpoints"] == ["POST /v1/chat/completions"]
    defaults = plain["sampling_defaults"]
    assert isinstance(defaults, dict)
    assert defaults["temperature"] == PLAIN.sampling.temperature
    assert plain["thinking_sampling_defaults"] is None
    thinker = body(family_named("qwen3"))
    assert (thinker["tools"], thinker["thinking"]) == ("hermes", "switched")
    assert thinker["thinking_sampling_defaults"] is not None
