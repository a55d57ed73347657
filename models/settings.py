"""The base of every configuration class: frozen, typed, without unknown keys."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen section of the configuration; an unknown key or a wrong type is an error.

    Each room of the code declares its own sections; `pipeline.config.project` puts them together,
    `pipeline.config.file` turns a validation error into words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
