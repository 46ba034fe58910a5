"""Pydantic's errors to one error of ours, in plain words. Knows pydantic, no single endpoint.

What a field accepts is a table of texts keyed by path: "temperature", "messages[].content",
"stop[]", and "logit_bias.*" where the keys are the caller's own. The error names the deepest place
that the table knows, so that no key of the caller's own making gets into `param`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from qwen_openai.errors import InvalidRequest
from qwen_openai.protocol.shown import shown


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a body: the place as the caller wrote it (`messages[2].role`), its key in
    the table (`messages[].role`), the value there, and whether it is absent; `entry` is a key of
    the caller's own making, where that is at fault."""

    param: str
    key: str
    value: object
    missing: bool
    entry: str | None = None

    @property
    def depth(self) -> int:
        """How many steps into the body it is."""
        return self.key.count(".") + self.key.count("[")

    def to_error(self, accepts: Mapping[str, str]) -> InvalidRequest:
        """Return the 400 that says what the place accepts and what it got."""
        if self.entry is not None:
            message = (
                f"{self.param}, at {shown(self.entry)}, must be {accepts[self.key]}, "
                f"got {shown(self.value)}."
            )
        elif self.missing:
            message = f"{self.param} is required: {accepts[self.key]}."
        else:
            message = f"{self.param} must be {accepts[self.key]}, got {shown(self.value)}."
        return InvalidRequest(message, param=self.param)


def find_fault(
    error: ValidationError, body: dict[str, object], accepts: Mapping[str, str]
) -> Fault:
    """Return the first fault. Of a union's branches the one that matched deepest tells it."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = errors[0]["loc"][0]
    faults = [_locate(each["loc"], body, accepts) for each in errors if each["loc"][0] == first]
    return max(faults, key=lambda fault: fault.depth)


def _locate(
    location: tuple[int | str, ...], body: dict[str, object], accepts: Mapping[str, str]
) -> Fault:
    """Follow a location through the body. A step that is neither in the table nor in the body names
    a branch of a union, and is passed over; one of the caller's own making ends the search."""
    fault = Fault(param="", key="", value=body, missing=False)
    for step in location:
        inner = _enter(fault, step)
        if inner is None or (inner.missing and inner.key not in accepts and isinstance(step, str)):
            continue
        if f"{fault.key}.*" in accepts:
            return replace(inner, param=fault.param, key=f"{fault.key}.*", entry=str(step))
        # An item that is missing: a pair is too short, and the list is at fault.
        if inner.key not in accepts or (inner.missing and isinstance(step, int)):
            break
        fault = inner
    return fault


def _enter(fault: Fault, step: int | str) -> Fault | None:
    """Return the place one step further in, None where the value has no such steps."""
    value = fault.value
    if isinstance(step, int):
        if not isinstance(value, list):
            return None
        missing = step >= len(value)
        item = None if missing else value[step]
        return Fault(f"{fault.param}[{step}]", f"{fault.key}[]", item, missing)
    if not isinstance(value, dict):
        return None
    dot = "." if fault.param else ""
    param, key = f"{fault.param}{dot}{step}", f"{fault.key}{dot}{step}"
    return Fault(param, key, value.get(step), step not in value)
