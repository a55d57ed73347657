"""Creation of a configuration file with its schemas, from a draft."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from models.features.spec import ColumnsConfig
from pipeline.config.file import parse, root_of
from pipeline.config.project import PipelineConfig
from pipeline.config.reference import json_schema
from pipeline.config.yaml_text import read_yaml
from pipeline.errors import InitError
from pipeline.init.config_yaml import config_yaml
from pipeline.init.draft import Draft, make_draft
from pipeline.schema_inference.config_schema import write_inferred_schema, write_text_file
from pipeline.schema_inference.observation import Observation

SETTINGS_SCHEMA = "settings.schema.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Folder names that are too generic for the name of a project.
_EMPTY_NAMES = {"", "data", "raw", "input", "inputs", "tmp", "downloads", "csv", "parquet"}


class WrittenConfig(NamedTuple):
    """A configuration file, and the decisions and statistics that it was written from."""

    file: Path
    config: PipelineConfig
    draft: Draft
    observed: Observation


def write_config(
    files: Mapping[str, str],
    columns: ColumnsConfig,
    output: Path | None = None,
    *,
    timestamp_unit: str | None = None,
    preset: str | None = None,
    force: bool = False,
) -> WrittenConfig:
    """Write a drafted configuration, the schema of its data, and the JSON Schema of the settings.

    `files`, `columns`, `timestamp_unit` and `preset` are those of `make_draft`. By default, the
    output is `configs/NAME.yaml` in the working directory. With `force`, files that exist are
    replaced.

    Raises:
        InitError: The files cannot be used for a draft, or an output file exists.
        SchemaError: The data cannot be read as drafted, or a file cannot be written.
        ConfigError: The draft is not a valid configuration.
    """
    file = (output or default_output(files["events"])).absolute()
    if file.suffix not in {".yaml", ".yml"} or not _NAME.fullmatch(file.stem):
        raise InitError(
            f"--output must be NAME.yaml with a name of letters, digits, _ and -, got {file.name}"
        )
    root = root_of(file)
    written = [file, root / "schema" / file.stem / "schema.pbtxt"]
    present = " and ".join(str(path) for path in written if path.exists())
    if present and not force:
        raise InitError(
            f"{present} must not exist: choose another file with --output, or replace with --force"
        )
    draft = make_draft(files, columns, timestamp_unit, preset)
    text = config_yaml(draft, file.stem, root, SETTINGS_SCHEMA)
    config = parse({"name": file.stem, **read_yaml(text), "root": root}, source=str(file))
    observed = write_inferred_schema(config, Path(config.schema_file), force=force)
    # Always replaced, because it describes the settings of the installed version.
    write_text_file(file.with_name(SETTINGS_SCHEMA), json.dumps(json_schema(), indent=1) + "\n")
    write_text_file(file, text)
    return WrittenConfig(file, config, draft, observed)


def default_output(events: str) -> Path:
    """Return the path `configs/NAME.yaml` in the working directory.

    NAME is the name of the folder of the events or, if that is too generic, of the file.
    """
    path = Path(events).expanduser().absolute()
    folder = path.parent.name
    is_general = folder.lower() in _EMPTY_NAMES or re.search(r"[*{]", folder)
    name = path.name.split(".")[0] if is_general else folder
    name = re.sub(r"\{[A-Z0-9:]*\}|[^A-Za-z0-9_-]+", "_", name)
    name = re.sub(r"_[_-]+", "_", name).strip("_-") or "retrieval"
    return Path.cwd() / "configs" / f"{name}.yaml"
