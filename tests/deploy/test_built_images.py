"""Both images are built and run: a server that answers, and the steps of a pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.build import build_retrieval_model
from components.index_builder.config import IndexConfig
from models.input.raw_examples import split_files
from models.towers.saved_towers import SavedTowers
from serving.clients import RetrievalClient
from serving.errors import ServingError
from tests.builders import DESCRIBED_SPEC, KnownTowers, free_port, wait_for
from tests.deploy.buildah import PROGRAMS, Images
from tests.pipeline.orchestrators.kubeflow.compiled_steps import (
    CompiledPipeline,
    compile_for_folder,
)
from tests.pipeline.two_clubs import write_two_clubs

MISSING = [program for program in PROGRAMS if not shutil.which(program)]
pytestmark = [
    pytest.mark.long,
    pytest.mark.images,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="building images needs root"),
]
SERVER, PIPELINE = "model_server", "pipeline"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """Images in a temporary folder, or in the one that IMAGES names, which is kept."""
    kept = os.environ.get("IMAGES")
    images = Images(Path(kept) if kept else tmp_path_factory.mktemp("images"))
    try:
        images.make_base()
        yield images
    finally:
        if not kept:
            images.remove()


def timed(do: Callable[[], Any]) -> float:
    started = time.monotonic()
    do()
    return time.monotonic() - started


def test_the_server_in_its_image_answers_from_a_scann_index(
    images: Images,
    many_towers: KnownTowers,
    many_embeddings: EmbeddingFiles,
    many_examples: str,
    tmp_path: Path,
) -> None:
    build_s = timed(lambda: images.build(SERVER))
    build_retrieval_model(
        SavedTowers(many_towers.directory, many_towers.spec),
        many_embeddings,
        split_files(many_examples, "eval"),
        DESCRIBED_SPEC,
        IndexConfig(backend="scann", k=10, leaves=4, leaves_to_search=4, reorder=100),
        "retrieval",
        "identity",
        str(tmp_path / "1"),
    )
    tmp_path.chmod(0o755)
    config, port = images.config(SERVER), free_port()
    log = tmp_path / "log"
    with (
        images.container(SERVER, f"{tmp_path}:/models/retrieval:ro") as run,
        RetrievalClient(f"127.0.0.1:{port}") as client,
        log.open("wb") as output,
    ):
        command = [*run, *config["Entrypoint"], *config["Cmd"]]
        command += [f"--port={port}", f"--rest_api_port={free_port()}"]
        started = time.monotonic()
        server = subprocess.Popen(command, stdout=output, stderr=output)

        def is_answering() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                client.recommend("user 1", k=5)
            except ServingError:
                return False
            return True

        try:
            wait_for(is_answering, timeout_s=120)
            start_s = time.monotonic() - started
            answer = client.recommend("user 1", k=5)
        finally:
            server.terminate()
            server.wait(30)
    print(
        f"\n{SERVER}: {images.size(SERVER)}, built in {build_s:.0f} s, answers in {start_s:.1f} s"
    )
    expected = many_towers.best(many_towers.embed("user 1"))[:5]
    assert list(answer.candidate_ids) == [name for name, _ in expected]


def test_every_step_of_a_pipeline_runs_in_its_image(images: Images, tmp_path: Path) -> None:
    build_s = timed(lambda: images.build(PIPELINE))
    config = write_two_clubs(tmp_path)
    root = tmp_path / "root"
    spec = compile_for_folder(config, root, f"schema.file={tmp_path}/schema/clubs/schema.pbtxt")
    tmp_path.chmod(0o777)  # The image's user writes here.
    with images.container(PIPELINE, f"{tmp_path}:{tmp_path}") as run:
        entrypoint = images.config(PIPELINE)["Entrypoint"]
        start_s = timed(lambda: subprocess.run([*run, *entrypoint, "--help"], check=True))
        steps = CompiledPipeline(spec, root / "run-1", {"data_directory": str(tmp_path)}, run)
        steps.run()
    print(
        f"\n{PIPELINE}: {images.size(PIPELINE)}, built in {build_s:.0f} s, help in {start_s:.1f} s"
    )
    print(*(f"{name} {seconds:.1f} s" for name, seconds in steps.seconds.items()), sep=", ")
    [model] = (root / "clubs" / "serving" / "retrieval").glob("*/saved_model.pb")
    assert model.stat().st_uid == 10001
