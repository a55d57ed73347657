"""Options that several commands share, and functions that parse their values."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.command import usage_error

if TYPE_CHECKING:
    from pipeline.config.project import PipelineConfig
    from serving.clients import TlsOptions


def _config_names(incomplete: str) -> list[str]:
    return sorted(p.stem for p in Path("configs").glob("*.yaml") if p.stem.startswith(incomplete))


_CONFIG = typer.Option(
    "--config",
    "-c",
    metavar="NAME",
    help="Name in configs/, or a path that ends in .yaml.",
    autocompletion=_config_names,
)
ConfigOption = Annotated[str, _CONFIG]
OptionalConfigOption = Annotated[str | None, _CONFIG]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting, such as training.epochs=10. Repeat it for more settings.",
    ),
]
SpanOption = Annotated[
    str | None,
    typer.Option(
        "--span",
        metavar="SPAN",
        help="Newest span to read: a number, a day such as 2026-11-20, or newest. Short for "
        "--set events.spans.last=SPAN.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        help="How long to wait for another run of this configuration to end.",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="gRPC address of a running server. If absent, a server is started for this command "
        "on the last pushed version.",
    ),
]
_CONNECTION = "Encrypted connection"
TlsCaOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="PEM file of the authority that signed the server's certificate.",
        rich_help_panel=_CONNECTION,
    ),
]
TlsCertificateOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="PEM file of this client's certificate.",
        rich_help_panel=_CONNECTION,
    ),
]
TlsKeyOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="PEM file of the key of --tls-certificate.",
        rich_help_panel=_CONNECTION,
    ),
]
TlsNameOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name in the server's certificate, if it is not that of the address.",
        rich_help_panel=_CONNECTION,
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FEATURE=VALUE",
        help="Only candidates with this value of a feature in `index.filters`. Repeat it to allow "
        "further values, or to filter by another feature as well.",
    ),
]


def span_override(span: str | None) -> list[str]:
    """Return the `--set` override that is equivalent to `--span`; empty if `span` is None."""
    import json

    # The quotes keep leading zeros: YAML reads an unquoted 0010 as the octal number 8.
    return [] if span is None else [f"events.spans.last={json.dumps(span)}"]


def load_config(name: str, overrides: Sequence[str] | None = None) -> "PipelineConfig":
    """Load a configuration with `pipeline.config.file.load`, which is slow to import.

    Raises:
        ConfigError: The file is missing or a setting is invalid.
    """
    from pipeline.config.file import load

    return load(name, overrides or ())


def split_ids(texts: Sequence[str] | None) -> list[str]:
    """Split the comma-separated values of a repeatable option into IDs; empty IDs are dropped.

    IDs that contain a comma must be quoted as in CSV: `--history '"a,b",c'`.
    """
    import csv

    ids: list[str] = []
    for text in texts or ():
        quoted = '"' in text
        rows = csv.reader([text], skipinitialspace=True) if quoted else [text.split(",")]
        # People type spaces around commas, so unquoted IDs are stripped. Quoted IDs are literal.
        ids += [part if quoted else part.strip() for row in rows for part in row]
    return [part for part in ids if part]


def parse_filters(texts: Sequence[str] | None) -> dict[str, list[str]]:
    """Parse `--allow FEATURE=VALUE` options into a list of allowed values per feature."""
    filters: dict[str, list[str]] = {}
    for text in texts or ():
        feature, equals, value = text.partition("=")
        if not (feature and equals and value):
            raise usage_error(f"--allow takes FEATURE=VALUE, got {text!r}")
        filters.setdefault(feature, []).append(value)
    return filters


def tls_options(
    ca: str | None, certificate: str | None, key: str | None, name: str | None
) -> "TlsOptions | None":
    """Return the TLS options of a client, or None for an unencrypted connection."""
    if not (ca or certificate or key or name):
        return None
    from serving.clients import TlsOptions

    return TlsOptions(ca, certificate, key, name)
