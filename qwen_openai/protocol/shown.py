"""A value of the caller, short enough and safe enough for an error message. Knows nothing else."""

import orjson

_LONGEST = 60


def shown(value: object) -> str:
    """Return at most 80 characters: scalars as JSON, strings quoted, escaped and cut, containers
    by their kind and size. Encodable as UTF-8 whatever comes in."""
    if isinstance(value, str):
        cut = value[:_LONGEST].encode("utf-8", "replace").decode()
        text = orjson.dumps(cut).decode()
        if len(text) > _LONGEST + 2:  # escapes made it longer
            text = text[:_LONGEST] + '"'
        return text[:-1] + '…"' if len(value) > _LONGEST else text
    if isinstance(value, list | tuple):
        return "an empty list" if not value else f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)[:_LONGEST]
