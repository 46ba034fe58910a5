"""The body of GET /v1/capabilities: the support matrix of chat completions as data, for one model.

Made from `protocol.parameters`, as the table in docs/api.md is, and from what the engine tells of
its model: what that one cannot do shows here as it is treated in a request. OpenAI's specification
has no such route; the shape is ours.
"""

from collections.abc import Sequence
from dataclasses import asdict

from qwen_openai.families import Family
from qwen_openai.protocol.parameters import PARAMETERS, Ability, Parameter


def capabilities_body(
    *,
    model: str,
    engine: str,
    context: int,
    family: Family,
    refuses: frozenset[str],
    endpoints: Sequence[str],
) -> dict[str, object]:
    """Return the body. `family` is the row of the model as loaded, `context` tokens of prompt and
    answer together, `refuses` the parameters that its engine cannot honour, `endpoints` what there
    is to call, as "POST /v1/...". Its sampling defaults are what a request that says nothing
    gets; `thinking_sampling_defaults` those of answers with thoughts, null where they are the same.
    """
    abilities: set[Ability] = set()
    if family.tools is not None:
        abilities.add("tools")
    if family.thinking != "never":
        abilities.add("thinking")
    thinking = family.thinking_sampling
    return {
        "object": "capabilities",
        "model": model,
        "engine": engine,
        "family": family.name,
        "context": context,
        "tools": family.tools,
        "thinking": family.thinking,
        "fill_in": family.fill_in is not None,
        "endpoints": list(endpoints),
        "sampling_defaults": asdict(family.sampling),
        "thinking_sampling_defaults": None if thinking is None else asdict(thinking),
        "parameters": [_row(row, abilities, refuses) for row in PARAMETERS.values()],
    }


def _row(row: Parameter, abilities: set[Ability], refuses: frozenset[str]) -> dict[str, object]:
    """`harmless` are values of a parameter that is not honoured that ask for nothing, and so may be
    sent; `instead` is what to send for a refused one, if there is anything."""
    use = "refused" if row.name in refuses else row.use_by(abilities)
    return {
        "name": row.name,
        "support": "refused" if use == "forbidden" else use,
        "accepts": row.accepts or None,
        "note": row.note or None,
        "harmless": list(row.harmless),
        "instead": row.instead or None,
    }
