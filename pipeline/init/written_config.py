"""Creation of a configuration file with its schemas, from a draft."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.config.file import parse
from pipeline.config.project import PipelineConfig
from pipeline.config.reference import json_schema
from pipeline.errors import InitError
from pipeline.init.config_yaml import config_yaml
from pipeline.init.draft import Draft, Request, make_draft
from pipeline.schema_inference.config_schema import write_inferred_schema, write_text_file
from pipeline.schema_inference.observation import Observation

SETTINGS_SCHEMA = "settings.schema.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Folder names that are too generic for the name of a project.
_EMPTY_NAMES = {"", "data", "raw", "input", "inputs", "tmp", "downloads", "csv", "parquet"}


@dataclass(frozen=True)
class WrittenConfig:
    """The result of `two-tower init`.

    Attributes:
        file: Path of the configuration file.
        config: Settings in the file.
        draft: The decisions that the file was written from.
        observed: Statistics of the data that the schema was inferred from.
    """

    file: Path
    config: PipelineConfig
    draft: Draft
    observed: Observation


def write_config(
    request: Request, output: Path | None = None, *, force: bool = False
) -> WrittenConfig:
    """Write a drafted configuration, the schema of its data, and the JSON Schema of the settings.

    Args:
        request: The input files and columns.
        output: The file to write; by default, `configs/NAME.yaml` in the working directory.
        force: Whether to replace files that exist.

    Raises:
        InitError: The files cannot be used for a draft, or an output file exists.
        SchemaError: The data cannot be read as drafted, or a file cannot be written.
        ConfigError: The draft is not a valid configuration.
    """
    file = (output or default_output(request.interactions)).absolute()
    if file.suffix not in {".yaml", ".yml"} or not _NAME.fullmatch(file.stem):
        raise InitError(
            f"--output must be NAME.yaml with a name of letters, digits, _ and -, got {file.name}"
        )
    root = file.parent.parent if file.parent.name == "configs" else file.parent
    _check_absent([file, root / "schema" / file.stem / "schema.pbtxt"], force)
    draft = make_draft(request)
    text = config_yaml(draft, file.stem, root, SETTINGS_SCHEMA)
    content = yaml.safe_load(text)
    config = parse({"name": file.stem, **content, "root": root}, source=str(file))
    observed = write_inferred_schema(config, Path(config.schema_file), force=force)
    # Always replaced, because it describes the settings of the installed version.
    write_text_file(file.with_name(SETTINGS_SCHEMA), json.dumps(json_schema(), indent=1) + "\n")
    write_text_file(file, text)
    return WrittenConfig(file, config, draft, observed)


def default_output(interactions: str) -> Path:
    """Return the path `configs/NAME.yaml` in the working directory.

    NAME is the name of the folder of the events or, if that is too generic, of the file.
    """
    path = Path(interactions).expanduser().absolute()
    folder = path.parent.name
    name = path.name.split(".")[0] if folder.lower() in _EMPTY_NAMES or "*" in folder else folder
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "retrieval"
    return Path.cwd() / "configs" / f"{name}.yaml"


def _check_absent(files: list[Path], force: bool) -> None:
    present = [str(file) for file in files if file.exists()]
    if present and not force:
        raise InitError(
            f"{' and '.join(present)} exist{'s' if len(present) == 1 else ''}: choose another file "
            "with --output, or replace with --force"
        )
