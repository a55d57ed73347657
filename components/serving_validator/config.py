"""Settings of serving and of the check before it."""

from pydantic import Field

from models.settings import Settings


class ServingConfig(Settings):
    """Where pushed versions go and how they are checked first."""

    model_name: str = Field("retrieval", pattern=r"^[A-Za-z0-9_.-]+$", description="Served name.")
    directory: str | None = Field(
        None, description="Base path of the versions; `serving/` beside the run if absent."
    )
    validation_requests: int = Field(
        32, ge=1, description="Real queries asked of the server before a push."
    )
    startup_timeout_s: float = Field(120.0, gt=0, description="For the server to load the model.")
    request_timeout_s: float = Field(10.0, gt=0, description="For one answer.")
