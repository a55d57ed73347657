"""Writes a drafted configuration and its schema, both or, where something fails, neither."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.config.file import parse
from pipeline.config.project import PipelineConfig
from pipeline.errors import InitError
from pipeline.init.config_yaml import config_yaml
from pipeline.init.draft import Draft, Request, make_draft
from pipeline.schema_inference.config_schema import write_inferred_schema, write_text_file
from pipeline.schema_inference.observation import Observation

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Folders that say nothing of what lies in them.
_EMPTY_NAMES = {"", "data", "raw", "input", "inputs", "tmp", "downloads", "csv", "parquet"}


@dataclass(frozen=True)
class WrittenConfig:
    """What was written.

    Attributes:
        file: The configuration.
        config: As loaded.
        draft: What it was made from.
        observed: What the schema was made from.
    """

    file: Path
    config: PipelineConfig
    draft: Draft
    observed: Observation


def write_config(
    request: Request, output: Path | None = None, *, force: bool = False
) -> WrittenConfig:
    """Drafts a configuration and writes it with its schema.

    Args:
        request: Files and columns.
        output: The file to write; `configs/NAME.yaml` in the working directory if absent.
        force: Whether to replace files that are there.

    Raises:
        InitError: Nothing can be drafted, or a file is in the way.
        SchemaError: The data cannot be read as the draft says, or a file cannot be written.
        ConfigError: The draft is no configuration.
    """
    file = (output or default_output(request.interactions)).absolute()
    if file.suffix not in {".yaml", ".yml"} or not _NAME.fullmatch(file.stem):
        raise InitError(
            f"--output: must be NAME.yaml with a name of letters, digits, _ and -, got {file.name}"
        )
    root = file.parent.parent if file.parent.name == "configs" else file.parent
    _check_absent([file, root / "schema" / file.stem / "schema.pbtxt"], force)
    draft = make_draft(request)
    text = config_yaml(draft, file.stem, root)
    content = yaml.safe_load(text)
    config = parse({"name": file.stem, **content, "root": root}, source=str(file))
    observed = write_inferred_schema(config, Path(config.schema_file), force=force)
    write_text_file(file, text)
    return WrittenConfig(file, config, draft, observed)


def default_output(interactions: str) -> Path:
    """Returns `configs/NAME.yaml`, named after the file's folder, or after the file itself."""
    path = Path(interactions).expanduser().absolute()
    folder = path.parent.name
    name = path.name.split(".")[0] if folder.lower() in _EMPTY_NAMES or "*" in folder else folder
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "retrieval"
    return Path.cwd() / "configs" / f"{name}.yaml"


def _check_absent(files: list[Path], force: bool) -> None:
    present = [str(file) for file in files if file.exists()]
    if present and not force:
        raise InitError(
            f"{' and '.join(present)} exist{'s' if len(present) == 1 else ''}; name another file "
            "with --output, or replace with --force"
        )
