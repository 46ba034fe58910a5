"""The bodies of GET /v1/models (specification 2.3.0: Model, ListModelsResponse)."""

from collections.abc import Iterable

OWNER = "qwen"


def model_object(id: str, created: int) -> dict[str, object]:
    """Return one model; `created` is Unix time in seconds."""
    return {"id": id, "object": "model", "created": created, "owned_by": OWNER}


def model_list(ids: Iterable[str], created: int) -> dict[str, object]:
    """Return the list of models, in the order given."""
    return {"object": "list", "data": [model_object(id, created) for id in ids]}
