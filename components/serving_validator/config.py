"""Settings of serving, and of the validation before a push."""

from pydantic import Field

from models.settings import Settings


class ServingConfig(Settings):
    """Settings of the served versions and of the validation before a push."""

    model_name: str = Field(
        "retrieval", pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the model in requests."
    )
    directory: str | None = Field(
        None, description="Base path of the served versions; by default `serving/` in `runs`."
    )
    return_fields: tuple[str, ...] = Field(
        (),
        description="Columns of the catalogue that answers contain, such as title and price: "
        "features by name, and other columns of `candidates.file` as text.",
    )
    known_histories: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Number of newest events of each known query that the model keeps, for "
        "requests with only a query ID.",
    )
    known_histories_max_mb: int = Field(
        1000,
        ge=1,
        description="Memory in MB that `known_histories` may take; a larger model is refused.",
    )
    validation_requests: int = Field(
        32, ge=1, description="Number of real queries that a server must answer before a push."
    )
    startup_timeout_s: float = Field(120.0, gt=0, description="Timeout for loading the model.")
    request_timeout_s: float = Field(10.0, gt=0, description="Timeout of one request.")
