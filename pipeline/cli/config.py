"""`two-tower config`: show a configuration, or the reference of all settings."""

import json
from typing import Annotated

import typer

from pipeline.cli.command import command, usage_error
from pipeline.cli.options import JsonOption, OptionalConfigOption, SetOption, load_config
from pipeline.cli.output import print_json


@command
def config(
    config: OptionalConfigOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the JSON Schema of configuration files.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables of docs/configuration.md.")
    ] = False,
) -> None:
    """Show a configuration with every default filled in.

    Example: two-tower config -c movielens_100k --set training.epochs=10
    """
    if json_schema or markdown:
        from pipeline.config import reference

        if json_schema:
            print(json.dumps(reference.json_schema(), indent=1))
        else:
            print(reference.markdown(), end="")
        return
    if config is None:
        raise usage_error("give a configuration with --config, or --json-schema or --markdown")
    loaded = load_config(config, set_).model_dump(mode="json", by_alias=True, exclude={"root"})
    if as_json:
        print_json(loaded)
        return
    import yaml

    print(yaml.safe_dump(loaded, sort_keys=False, allow_unicode=True), end="")
