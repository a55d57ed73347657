from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from components.schema_importer.component import OtherSchemaError, SchemaImporter, hash_of_schema
from tests.builders import artifact

SCHEMA = 'feature { name: "user" type: BYTES }\n'


def run(folder: Path, declared: Path, found: Path) -> Path:
    SchemaImporter.test_call(
        schema=artifact(standard_artifacts.Schema, folder / "output"),
        schema_file=str(found),
        schema_hash=hash_of_schema(str(declared)),
    )
    return folder / "output" / "schema.pbtxt"


def test_the_declared_schema_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "schema.pbtxt"
    file.write_text(SCHEMA)
    assert run(tmp_path, file, file).read_text() == SCHEMA


def test_another_schema_in_its_place_is_refused(tmp_path: Path) -> None:
    here, image = tmp_path / "schema.pbtxt", tmp_path / "image.pbtxt"
    here.write_text(SCHEMA)
    image.write_text(SCHEMA.replace("user", "item"))
    with pytest.raises(OtherSchemaError, match=r"another schema .* rebuild the image"):
        run(tmp_path, here, image)
    assert not (tmp_path / "output").exists()
