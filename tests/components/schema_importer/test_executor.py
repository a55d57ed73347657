from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from components.schema_importer.component import SchemaImporter
from components.schema_importer.executor import Executor, OtherSchemaError
from components.schema_importer.spec import SCHEMA_KEY

SCHEMA = 'feature { name: "user" type: BYTES }\n'


def do(folder: Path, component: SchemaImporter) -> Path:
    output = standard_artifacts.Schema()
    output.uri = str(folder / "output")
    Executor().Do({}, {SCHEMA_KEY: [output]}, dict(component.exec_properties))
    return folder / "output" / "schema.pbtxt"


def test_the_declared_schema_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "schema.pbtxt"
    file.write_text(SCHEMA)
    assert do(tmp_path, SchemaImporter(str(file))).read_text() == SCHEMA


def test_another_schema_in_its_place_is_refused(tmp_path: Path) -> None:
    here, image = tmp_path / "schema.pbtxt", tmp_path / "image.pbtxt"
    here.write_text(SCHEMA)
    image.write_text(SCHEMA.replace("user", "item"))
    with pytest.raises(OtherSchemaError, match=r"another schema .* build the image"):
        do(tmp_path, SchemaImporter(str(here), str(image)))
    assert not (tmp_path / "output").exists()
