"""`two-tower config`: show a configuration, or the reference of all settings."""

import json

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Project
from pipeline.cli.output import print_json


@command
def config(
    config: str | None = None,
    set_: list[str] | None = None,
    as_json: bool = False,
    json_schema: bool = False,
    markdown: bool = False,
) -> None:
    """Show a configuration with every default filled in.

    Example: two-tower config -c movielens_100k --set training.epochs=10

    Args:
        json_schema: Print the JSON Schema of configuration files.
        markdown: Print the tables of settings in docs/configuration.md.
    """
    if json_schema or markdown:
        from pipeline.config import reference

        if json_schema:
            print(json.dumps(reference.json_schema(), indent=1))
        else:
            print(reference.markdown(), end="")
        return
    if config is None:
        raise typer.BadParameter(
            "give a configuration with --config, or --json-schema or --markdown"
        )
    loaded = Project(config, set_).load().model_dump(mode="json", by_alias=True, exclude={"root"})
    if as_json:
        print_json(loaded)
        return
    from pipeline.config.yaml_text import write_yaml

    print(write_yaml(loaded), end="")
