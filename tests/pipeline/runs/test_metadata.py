"""The connection to ML Metadata, up to the boundary: no database server runs here.

With one that does: `test_metadata_servers.py`.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ml_metadata.proto import metadata_store_pb2

from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.config.file import load
from pipeline.runs.metadata import (
    MetadataUnreachableError,
    connection_config,
    has_metadata,
    open_store,
)


def config(folder: Path, **metadata: Any) -> PipelineConfig:
    content: dict[str, Any] = {
        "events": {
            "files": "events.csv",
            "query_id": "user",
            "candidate_id": "item",
            "timestamp": "time",
        },
        "metadata": metadata,
    }
    (folder / "use.yaml").write_text(yaml.safe_dump(content))
    return load(str(folder / "use.yaml"))


SERVER = {"host": "db.example.com", "database": "mlmd", "user": "two-tower"}


def test_sqlite_lies_in_the_folder_of_the_runs(tmp_path: Path) -> None:
    use = config(tmp_path)
    sqlite = connection_config(use).sqlite
    assert sqlite.filename_uri == str(tmp_path / "runs" / "use" / "metadata.sqlite")
    assert not has_metadata(use)
    use.run_dir.mkdir(parents=True)
    assert open_store(use).get_artifacts() == []
    assert has_metadata(use)


def test_mysql_is_reached_with_user_and_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret ä\n")
    use = config(tmp_path, backend="mysql", **SERVER, password_file="password")
    assert connection_config(use) == metadata_store_pb2.ConnectionConfig(
        mysql=metadata_store_pb2.MySQLDatabaseConfig(
            host="db.example.com",
            port=3306,
            database="mlmd",
            user="two-tower",
            password="s3cret ä",
        )
    )
    assert "s3cret" not in use.model_dump_json()
    here = config(tmp_path, backend="mysql", **{**SERVER, "host": "localhost"})
    assert connection_config(here).mysql.host == "127.0.0.1"
    assert has_metadata(use)


def test_postgresql_is_reached_with_user_and_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret")
    use = config(tmp_path, backend="postgresql", **SERVER, port=6432, password_file="password")
    assert connection_config(use) == metadata_store_pb2.ConnectionConfig(
        postgresql=metadata_store_pb2.PostgreSQLDatabaseConfig(
            host="db.example.com",
            port="6432",
            dbname="mlmd",
            user="two-tower",
            password="s3cret",
        )
    )


def test_a_password_with_blanks_and_quotes_reaches_postgresql_as_one_word(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("it's \\ sslmode=disable\n")
    use = config(tmp_path, backend="postgresql", **SERVER, password_file="password")
    written = connection_config(use).postgresql.password
    assert written == r"'it\'s \\ sslmode=disable'"


@pytest.mark.parametrize("backend", ["mysql", "postgresql"])
def test_a_server_that_does_not_answer_is_named(tmp_path: Path, backend: str) -> None:
    use = config(tmp_path, backend=backend, **{**SERVER, "host": "127.0.0.1"}, port=1)
    with pytest.raises(MetadataUnreachableError, match=rf"{backend} at 127\.0\.0\.1, database"):
        open_store(use)


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs `metadata\.database`, `metadata\.user`"):
        config(tmp_path, backend="mysql", host="x")
    with pytest.raises(ConfigError, match=r"`metadata\.host` is for mysql and postgresql"):
        config(tmp_path, host="x")
    with pytest.raises(
        ConfigError,
        match="'two-tower': for mysql ML Metadata takes a name of letters, digits, `_` and",
    ):
        config(tmp_path, backend="mysql", **{**SERVER, "database": "two-tower"})
    config(tmp_path, backend="postgresql", **{**SERVER, "database": "two-tower"})
    with pytest.raises(ConfigError, match="'a b': for postgresql ML Metadata takes"):
        config(tmp_path, backend="postgresql", **{**SERVER, "database": "a b"})
    with pytest.raises(ConfigError, match="cannot check a server's certificate"):
        config(tmp_path, backend="mysql", **SERVER, ssl_ca="ca.pem")
    use = config(tmp_path, backend="mysql", **SERVER, password_file="none")
    with pytest.raises(ConfigError, match="holds no password"):
        connection_config(use)
