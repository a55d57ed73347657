from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.types import standard_artifacts

from components.artifacts import CandidateEmbeddings
from components.candidate_embedder.component import CandidateEmbedder
from components.candidate_embedder.embed import embed_candidates
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.errors import EmbeddingError, EmbeddingFilesError, NotBlessedError
from models.errors import ChangedFeaturesError
from models.features.spec import FeatureSpec
from tests.builders import DESCRIBED_SPEC, artifact, blessing, feature_spec, write_examples

Embed = Callable[..., None]


def pipeline(*arguments: str) -> beam.Pipeline:
    return beam.Pipeline(options=PipelineOptions(["--runner=DirectRunner", *arguments]))


two_workers = partial(pipeline, "--direct_num_workers=2", "--direct_running_mode=multi_processing")


def candidate(name: str | bytes, *genres: str) -> dict[str, Any]:
    return {"item": [name], "genres": list(genres), "user": [], "age": []}


@pytest.fixture
def known(make_towers: Callable[..., Any]) -> Any:
    return make_towers({"a": [1.0, 2.0], "b": [3.0, 4.0], "é ü": [5.0, 6.0]}, {"user": [1.0, 0.0]})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def embed(known: Any, tmp_path: Path, out: Path) -> Embed:
    """Embed the candidates of files with `known`, unless other towers are given."""

    def run(
        *parts: list[dict[str, Any]],
        towers: Any = known,
        spec: FeatureSpec | None = None,
        workers: Callable[[], beam.Pipeline] = pipeline,
        block: int = 100,
    ) -> None:
        files = [write_examples(tmp_path / f"in{n}", part) for n, part in enumerate(parts)]
        spec = spec or towers.spec
        embed_candidates(towers.directory, spec, files, str(out), workers, block)

    return run


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [pq.read_table(path).to_pylist() for path in sorted(folder.glob("*.parquet"))]
    return [row for part in found for row in part]


def test_every_candidate_has_its_vector_and_its_features_under_the_documented_schema(
    embed: Embed, out: Path
) -> None:
    embed([candidate("b", "x", "y"), candidate("é ü"), candidate("a", "z")])
    assert rows(out) == [
        {"item": b"b", "embedding": [3.0, 4.0], "genres": ["x", "y"]},
        {"item": "é ü".encode(), "embedding": [5.0, 6.0], "genres": None},
        {"item": b"a", "embedding": [1.0, 2.0], "genres": ["z"]},
    ]
    [path] = out.glob("*.parquet")
    assert path.name == "embeddings-00000-of-00001.parquet"
    schema = pq.read_schema(path)
    assert str(schema.field("embedding").type) == "fixed_size_list<item: float>[2]"
    assert str(schema.field("item").type) == "binary"
    assert str(schema.field("genres").type) == "list<item: string>"


def test_features_that_the_model_does_not_learn_from_are_columns_too(
    embed: Embed, out: Path
) -> None:
    described = {**candidate("b"), "title": ["B"], "price": [2.5]}
    embed([described, candidate("a")], spec=DESCRIBED_SPEC)
    assert [(row["title"], row["price"]) for row in rows(out)] == [("B", 2.5), (None, None)]


def test_ids_keep_all_their_bytes(embed: Embed, known: Any, out: Path) -> None:
    ids = [b"a\nb", b"\xff\xfe", b" a ", b"a\r", b"\x00", b'"', b"\\", "漢".encode(), b"a,b"]
    embed([candidate(name) for name in ids])
    assert [row["item"] for row in rows(out)] == ids
    blocks = EmbeddingFiles(str(out), known.spec).ids()
    assert [name.as_py() for block in blocks for name in block] == ids


@pytest.mark.parametrize("workers", [pipeline, pytest.param(two_workers, marks=pytest.mark.slow)])
def test_blocks_of_any_size_and_any_workers_give_the_same_rows_in_order(
    many_towers: Any, embed: Embed, out: Path, tmp_path: Path, workers: Any
) -> None:
    candidates = [candidate(name, "x") for name in many_towers.ids]
    embed(candidates[:130], candidates[130:], towers=many_towers, workers=workers, block=60)
    read = EmbeddingFiles(str(out), many_towers.spec)
    assert len(list(out.glob("*.parquet"))) == 6
    assert (read.num_candidates, read.dimension) == (300, 8)
    assert [row["item"].decode() for row in rows(out)] == many_towers.ids
    vectors = read.vectors(str(tmp_path / "vectors"))
    assert isinstance(vectors, np.memmap)
    np.testing.assert_allclose(vectors, many_towers.vectors, rtol=1e-6)


def test_vectors_that_are_not_finite_are_an_error_and_no_file_remains(
    make_towers: Callable[..., Any], embed: Embed, out: Path
) -> None:
    vectors = {"a": [1.0, 2.0], "b": [3.0, float("nan")], "c": [float("inf"), 0.0]}
    broken = make_towers(vectors, {"user": [1.0, 0.0]})
    with pytest.raises(EmbeddingError, match=r"of 2 candidates .* infinity: b, c"):
        embed([candidate(name) for name in "abc"], towers=broken)
    assert list(out.iterdir()) == []


def test_an_empty_catalogue_is_an_error(embed: Embed) -> None:
    with pytest.raises(EmbeddingError, match="is empty"):
        embed([])


def test_features_that_differ_from_those_of_the_model_are_an_error(embed: Embed) -> None:
    other = feature_spec(
        query={"age": {"kind": "numeric"}},
        candidate={"genres": {"kind": "categorical"}, "year": {"kind": "numeric"}},
    )
    with pytest.raises(ChangedFeaturesError, match="genres was string of rank 2 and is string of"):
        embed([candidate("a")], spec=other)


def test_a_missing_file_is_an_error(many_towers: Any, embed: Embed, out: Path) -> None:
    embed([candidate(name) for name in many_towers.ids], towers=many_towers)
    (out / "embeddings-00001-of-00003.parquet").unlink()
    with pytest.raises(EmbeddingFilesError, match="00002"):
        EmbeddingFiles(str(out), many_towers.spec)
    with pytest.raises(EmbeddingFilesError, match="none"):
        EmbeddingFiles(str(out.parent / "in0"), many_towers.spec)


@pytest.mark.parametrize("blessed", [True, False])
def test_the_component_embeds_only_with_a_blessed_model(
    many_towers: Any, many_examples: str, out: Path, tmp_path: Path, blessed: bool
) -> None:
    def do() -> None:
        CandidateEmbedder.test_call(
            examples=artifact(standard_artifacts.Examples, many_examples),
            model=artifact(standard_artifacts.Model, Path(many_towers.directory).parent),
            model_blessing=blessing(standard_artifacts.ModelBlessing, tmp_path / "b", blessed),
            embeddings=artifact(CandidateEmbeddings, out),
            config=many_towers.spec.model_dump_json(),
            beam_pipeline=beam.Pipeline(),
        )

    if blessed:
        do()
        assert EmbeddingFiles(str(out), many_towers.spec).num_candidates == 300
    else:
        with pytest.raises(NotBlessedError):
            do()
        assert not out.exists()
