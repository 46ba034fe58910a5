"""What all models of bodies have in common: strict, frozen, other members left to the caller."""

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Wire(BaseModel):
    """Base of wire models: no value is converted, NaN is no number."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")


def at_most(entries: int) -> BeforeValidator:
    """Return a validator that refuses an object of more entries before any is looked at: pydantic
    counts them last, and tells every fault of every one of them."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > entries:
            raise ValueError(f"more than {entries} entries")
        return value

    return BeforeValidator(check)
