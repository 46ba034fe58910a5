"""What a server can do, as data: the matrix, as it is for the model that runs."""

import json
from dataclasses import replace

from qwen_openai.families import Family, family_named
from qwen_openai.protocol.completions import COMPLETION_PARAMETERS
from qwen_openai.protocol.parameters import PARAMETERS
from qwen_openai.protocol.responses_api import RESPONSES_PARAMETERS
from qwen_openai.responses.capabilities import Runs, capabilities_body

PLAIN = replace(family_named("qwen2"), tools=None, thinking="never")


def body(family: Family, *, refuses: frozenset[str] = frozenset()) -> dict[str, object]:
    runs = Runs("fake", context=4096, refuses=refuses)
    made = capabilities_body("m", runs, family, ["POST /v1/chat/completions"])
    wire = json.loads(json.dumps(made))
    assert isinstance(wire, dict)
    return wire


def support(
    family: Family, path: str = "/v1/chat/completions", *, refuses: frozenset[str] = frozenset()
) -> dict[str, str]:
    made = body(family, refuses=refuses)
    matrices = made["parameters_by_endpoint"]
    assert isinstance(matrices, dict)
    assert made["parameters"] == matrices["/v1/chat/completions"]
    rows = matrices[path]
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


def test_every_endpoint_has_its_own_matrix() -> None:
    completions, responses = support(PLAIN, "/v1/completions"), support(PLAIN, "/v1/responses")
    assert completions.keys() == COMPLETION_PARAMETERS.keys()
    assert responses.keys() == RESPONSES_PARAMETERS.keys()
    assert (completions["prompt"], responses["prompt"]) == ("honoured", "refused")
    assert (completions["messages"], responses["input"]) == ("refused", "honoured")
    cannot = frozenset(("seed",))
    for path in ("/v1/completions", "/v1/responses"):
        assert support(PLAIN, path)["seed"] == "honoured"
        assert support(PLAIN, path, refuses=cannot)["seed"] == "refused"


def test_what_the_model_cannot_do() -> None:
    gaps = replace(PLAIN, fill_in=family_named("qwen2.5-coder").fill_in)
    assert support(PLAIN, "/v1/completions")["suffix"] == "refused"
    assert support(gaps, "/v1/completions")["suffix"] == "honoured"
    thinker = support(family_named("qwen3"), "/v1/responses")
    assert (thinker["reasoning"], thinker["tools"]) == ("honoured", "honoured")
    assert support(PLAIN, "/v1/responses")["tools"] == "refused"
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
