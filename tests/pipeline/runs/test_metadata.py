"""The connection to ML Metadata; `test_metadata_servers.py` uses a real database server."""

from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2

from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError, MetadataUnreachableError
from pipeline.runs.metadata import connection_config, has_metadata, open_store
from tests.builders import project

SERVER = {"backend": "mysql", "host": "db.example.com", "database": "mlmd", "user": "two-tower"}


def config(folder: Path, **metadata: Any) -> PipelineConfig:
    return project(folder, metadata=metadata)


def test_sqlite_is_a_file_in_the_run_folder(tmp_path: Path) -> None:
    clubs = config(tmp_path)
    sqlite = connection_config(clubs).sqlite
    assert sqlite.filename_uri == str(tmp_path / "runs" / "clubs" / "metadata.sqlite")
    assert not has_metadata(clubs)
    assert open_store(clubs).get_artifacts() == []
    assert has_metadata(clubs)


def test_mysql_is_connected_with_user_and_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret ä\n")
    clubs = config(tmp_path, **SERVER, password_file="password")
    assert connection_config(clubs) == metadata_store_pb2.ConnectionConfig(
        mysql=metadata_store_pb2.MySQLDatabaseConfig(
            host="db.example.com",
            port=3306,
            database="mlmd",
            user="two-tower",
            password="s3cret ä",
        )
    )
    assert "s3cret" not in clubs.model_dump_json()
    assert has_metadata(clubs)
    # MySQL's client would use a socket for `localhost`.
    local = config(tmp_path / "local", **{**SERVER, "host": "localhost"})
    assert connection_config(local).mysql.host == "127.0.0.1"


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    clubs = config(tmp_path, **{**SERVER, "host": "127.0.0.1"}, port=1)
    with pytest.raises(MetadataUnreachableError, match=r"mysql at 127\.0\.0\.1, database 'mlmd'"):
        open_store(clubs)


def test_a_password_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    clubs = config(tmp_path, **SERVER, password_file="none")
    with pytest.raises(ConfigError, match="password_file"):
        connection_config(clubs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "mysql", "host": "x"}, r"needs `metadata\.database`, `metadata\.user`"),
        ({"host": "x"}, r"`metadata\.host` needs `metadata\.backend: mysql`"),
        ({**SERVER, "database": "two-tower"}, "'two-tower'"),
        ({**SERVER, "backend": "postgresql"}, "postgresql"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **settings)
