"""The real client of Google Cloud Storage, asking a server on this machine."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from pipeline.orchestrators.kubeflow import folder_markers
from pipeline.orchestrators.kubeflow.folder_markers import (
    NoStorageClientError,
    remove_markers,
    require_client,
)

OUTPUT = "gs://bucket/pipelines/clubs/1/Transform/transform_graph"
_ANSWERED_AT_ONCE = 2


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The content of `bucket` by name, behind the JSON API's list and delete."""
    pytest.importorskip("google.cloud.storage", reason="needs the extra `kubeflow`")
    stored: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            assert parts.path == "/storage/v1/b/bucket/o"
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            found = [name for name in sorted(stored) if name.startswith(asked["prefix"])]
            start = int(asked.get("pageToken", 0))
            page = found[start : start + _ANSWERED_AT_ONCE]
            items = [{"name": name, "size": str(len(stored[name]))} for name in page]
            more = {"nextPageToken": str(start + len(page))} if found[start + len(page) :] else {}
            self._answer(200, {"items": items, **more})

        def do_DELETE(self) -> None:
            name = unquote(urlsplit(self.path).path.removeprefix("/storage/v1/b/bucket/o/"))
            self._answer(204 if stored.pop(name, None) is not None else 404, {})

        def _answer(self, status: int, content: object) -> None:
            body = b"" if status == 204 else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the test prints."""

    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield stored
        finally:
            server.shutdown()


def test_only_the_empty_marks_below_the_outputs_go(objects: dict[str, bytes]) -> None:
    below = OUTPUT.removeprefix("gs://bucket/")
    objects |= dict.fromkeys(
        [f"{below}/", f"{below}/transform_fn/", f"{below}/transform_fn/assets é/"], b""
    )
    kept = {
        f"{below}/transform_fn/saved_model.pb": b"model",
        f"{below}/transform_fn/BLESSED": b"",
        f"{below}/odd/": b"not ours",
        f"{below}_report/": b"",
        "pipelines/clubs/1/": b"",
    }
    objects |= kept
    assert remove_markers([OUTPUT, "/mounted/output"]) == 3
    assert objects == kept
    assert remove_markers([OUTPUT]) == 0


def test_paths_need_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_markers, "_PACKAGE", "no.such.package")
    require_client(["/mounted/output"])
    assert remove_markers(["/mounted/output"]) == 0


def test_an_image_without_the_client_is_told_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folder_markers, "_PACKAGE", "no.such.package")
    with pytest.raises(NoStorageClientError, match=r"LOCK=deploy/kubeflow/requirements\.lock"):
        require_client([OUTPUT])
