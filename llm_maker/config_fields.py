"""The kinds of value that config.yaml holds, in people's units, and the base of its sections: frozen, strict, closed."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def whole_units(value: float | None) -> float | None:
    if value is not None and Decimal(repr(value)).as_tuple().exponent < -6:  # type: ignore[operator]
        raise ValueError("has more than 6 decimals")
    return value


def whole_milli(value: float) -> float:
    if Decimal(repr(value)).as_tuple().exponent < -3:  # type: ignore[operator]
        raise ValueError("has more than 3 decimals")
    return value


Usd = Annotated[float, Field(ge=0, le=1e9), AfterValidator(whole_units)]
SomeUsd = Annotated[float, Field(gt=0, le=1e9), AfterValidator(whole_units)]
Shares = Annotated[float, Field(gt=0, le=1e6), AfterValidator(whole_milli)]
Percent = Annotated[float, Field(gt=0, le=100)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=31_536_000), AfterValidator(whole_units)]
Hours = Annotated[float, Field(ge=0, le=8_760), AfterValidator(whole_milli)]
Millis = Annotated[int, Field(ge=1, le=600_000)]
Megabytes = Annotated[float, Field(gt=0, le=1e6), AfterValidator(whole_units)]
Ticks = Annotated[int, Field(ge=0, le=1_000)]
Names = Annotated[tuple[str, ...], Field(strict=False, max_length=10_000)]


def ordered(section: BaseModel, low: str, high: str) -> None:
    below, above = getattr(section, low), getattr(section, high)
    if below > above:
        raise ValueError(f"{low} {below:g} is above {high} {above:g}")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
