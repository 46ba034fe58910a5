"""What all models of bodies have in common: strict, frozen, other members left to the caller."""

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """Base of wire models: no value is converted, NaN is no number."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")
