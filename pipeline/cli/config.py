"""`two-tower config`: show a configuration with every default filled in."""

from pipeline.cli.options import ConfigOption, JsonOption, SetOption, load_config


def config(config: ConfigOption, set_: SetOption = None, as_json: JsonOption = False) -> None:
    """Show a configuration with every default filled in."""
    import json

    import yaml

    loaded = load_config(config, set_).model_dump(mode="json", by_alias=True, exclude={"root"})
    if as_json:
        print(json.dumps(loaded))
    else:
        print(yaml.safe_dump(loaded, sort_keys=False, allow_unicode=True), end="")
