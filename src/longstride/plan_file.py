"""What a plan file must look like, field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from .errors import PlanError
from .plan import VERSION

Number = Annotated[float, pydantic.Strict()]  # a text that reads like a number is not one
Whole = Annotated[int, pydantic.Strict()]


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


class StageFile(Strict):
    x: tuple[Number, ...]
    f: tuple[Number, ...]
    z: tuple[Number, ...]
    at: Number | None
    field: Whole = pydantic.Field(ge=0, le=3)


class StepFile(Strict):
    stages: tuple[StageFile, ...]
    keep_x: tuple[Whole, ...]
    keep_f: tuple[Whole, ...]
    brownian: tuple[Number, ...] | None


class PlanFile(Strict):
    format: Literal["longstride-plan"]
    version: Literal[1]  # VERSION
    method: str
    options: dict[str, Any]
    made_for: dict[str, Any]
    nfe: Whole
    states: Whole = 1
    times: tuple[Number, ...]
    steps: tuple[StepFile, ...]
    report: dict[str, Any]
    digest: str


def parse(path: str | Path, raw: Any) -> PlanFile:
    """Check what was read from `path`.

    Raises:
        PlanError: naming the first field that is missing, unknown or of another type.
    """
    try:
        return PlanFile.model_validate(raw)
    except pydantic.ValidationError as error:
        version = raw.get("version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version != VERSION:
            raise PlanError(
                f"{path} is a plan file of version {version}, and this Longstride reads version {VERSION}: "
                "install the one that wrote it, or make the plan again"
            ) from error
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PlanError(f"{path} is not a plan: {where}: {first['msg'].lower()}") from error
