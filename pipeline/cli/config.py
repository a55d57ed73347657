"""`two-tower config`: show a configuration, or the reference of all settings."""

import json
from typing import Annotated

import typer

from pipeline.cli.console import fail
from pipeline.cli.options import JsonOption, SetOption, load_config


def config(
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help="Name in configs/, or a path that ends in .yaml."),
    ] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the JSON Schema of configuration files.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables of docs/configuration.md.")
    ] = False,
) -> None:
    """Show a configuration with every default filled in."""
    if json_schema or markdown:
        from pipeline.config import reference

        print(
            json.dumps(reference.json_schema(), indent=1) if json_schema else reference.markdown(),
            end="\n" if json_schema else "",
        )
        return
    if config is None:
        fail("give a configuration with --config, or --json-schema or --markdown")
    loaded = load_config(config, set_).model_dump(mode="json", by_alias=True, exclude={"root"})
    if as_json:
        print(json.dumps(loaded))
        return
    import yaml

    print(yaml.safe_dump(loaded, sort_keys=False, allow_unicode=True), end="")
