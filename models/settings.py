"""The base class of all sections of the configuration."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen section of the configuration that rejects unknown keys and wrong types.

    Each package declares its own sections, and `pipeline.config.project` combines them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
