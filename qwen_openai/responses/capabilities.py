"""The body of GET /v1/capabilities: the support matrices of the routes as data, for one model.

Made from the matrices in `protocol`, as the tables in docs/api.md are, and from what the engine
tells of its model: what that one cannot do shows here as it is treated in a request. OpenAI's
specification has no such route; the shape is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType

from qwen_openai.families import Family
from qwen_openai.protocol.completions import COMPLETION_PARAMETERS
from qwen_openai.protocol.parameters import PARAMETERS, Ability, Parameter
from qwen_openai.protocol.responses_api import RESPONSES_PARAMETERS

_CHAT = "/v1/chat/completions"
_MATRICES: Mapping[str, Mapping[str, Parameter]] = MappingProxyType(
    {
        _CHAT: PARAMETERS,
        "/v1/completions": COMPLETION_PARAMETERS,
        "/v1/responses": RESPONSES_PARAMETERS,
    }
)


@dataclass(frozen=True, slots=True)
class Runs:
    """What runs the model: the engine's name, its `context` in tokens of prompt and answer together
    (0 where that is not known), and the parameters that it `refuses`, since it cannot honour them.
    With `hands_on` another server holds the model."""

    engine: str
    context: int
    refuses: frozenset[str] = frozenset()
    hands_on: bool = False


def capabilities_body(
    model: str, runs: Runs, family: Family, endpoints: Sequence[str]
) -> dict[str, object]:
    """Return the body. `family` is the row of the model as loaded, `endpoints` what there is to
    call, as "POST /v1/...". Its sampling defaults are what a request that says nothing
    gets; `thinking_sampling_defaults` those of answers with thoughts, null where they are the same.
    `parameters_by_endpoint` holds a matrix for each path; `parameters` is the one of chat. Where
    the model is handed on, the matrices say what may be sent, and what is left out has the other
    server's defaults, which are not known here, as its context may not be.
    """
    abilities = _abilities(family)
    matrices = {
        path: [_row(row, abilities, runs.refuses) for row in rows.values()]
        for path, rows in _MATRICES.items()
    }
    thinking = family.thinking_sampling
    return {
        "object": "capabilities",
        "model": model,
        "engine": runs.engine,
        "family": family.name,
        "context": runs.context or None,
        "handed_on": runs.hands_on,
        "tools": family.tools,
        "thinking": family.thinking,
        "fill_in": family.fill_in is not None,
        "endpoints": list(endpoints),
        "sampling_defaults": None if runs.hands_on else asdict(family.sampling),
        "thinking_sampling_defaults": (
            None if thinking is None or runs.hands_on else asdict(thinking)
        ),
        "parameters": matrices[_CHAT],
        "parameters_by_endpoint": matrices,
    }


def _abilities(family: Family) -> set[Ability]:
    abilities: set[Ability] = set()
    if family.tools is not None:
        abilities.add("tools")
    if family.thinking != "never":
        abilities.add("thinking")
    if family.fill_in is not None:
        abilities.add("fill_in")
    return abilities


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
