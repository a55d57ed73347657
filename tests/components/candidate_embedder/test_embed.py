from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from components.artifacts import CandidateEmbeddings, NotBlessedError
from components.candidate_embedder.component import CandidateEmbedder
from components.candidate_embedder.embed import EmbeddingError, embed_candidates
from components.candidate_embedder.embedding_files import EmbeddingFiles, EmbeddingFilesError
from models.errors import ChangedFeaturesError
from models.features.spec import FeatureSpec
from tests.builders import artifact

WriteExamples = Callable[..., str]


def one_worker() -> beam.Pipeline:
    return beam.Pipeline(options=PipelineOptions(["--runner=DirectRunner"]))


def two_workers() -> beam.Pipeline:
    args = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    return beam.Pipeline(options=PipelineOptions(["--runner=DirectRunner", *args]))


def candidate(name: str | bytes, *genres: str) -> dict[str, Any]:
    return {"item": [name], "genres": list(genres), "user": [], "age": []}


@pytest.fixture
def known(make_towers: Callable[..., Any]) -> Any:
    return make_towers({"a": [1.0, 2.0], "b": [3.0, 4.0], "é ü": [5.0, 6.0]}, {"user": [1.0, 0.0]})


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [pq.read_table(path).to_pylist() for path in sorted(folder.glob("*.parquet"))]
    return [row for part in found for row in part]


def test_every_candidate_has_its_vector_and_its_features_under_the_documented_schema(
    known: Any, write_examples: WriteExamples, tmp_path: Path
) -> None:
    file = write_examples(
        tmp_path / "in", [candidate("b", "x", "y"), candidate("é ü"), candidate("a", "z")]
    )
    assert embed_candidates(known.directory, known.spec, [file], str(tmp_path), one_worker) == 3
    assert rows(tmp_path) == [
        {"item": b"b", "embedding": [3.0, 4.0], "genres": ["x", "y"]},
        {"item": "é ü".encode(), "embedding": [5.0, 6.0], "genres": None},
        {"item": b"a", "embedding": [1.0, 2.0], "genres": ["z"]},
    ]
    [path] = tmp_path.glob("*.parquet")
    assert path.name == "embeddings-00000-of-00001.parquet"
    schema = pq.read_schema(path)
    assert str(schema.field("embedding").type) == "fixed_size_list<item: float>[2]"
    assert str(schema.field("item").type) == "binary"
    assert str(schema.field("genres").type) == "list<item: string>"


def test_ids_keep_all_their_bytes(
    known: Any, write_examples: WriteExamples, tmp_path: Path
) -> None:
    ids = [b"a\nb", b"\xff\xfe", b" a ", b"a\r", b"\x00", b'"', b"\\", "漢".encode(), b"a,b"]
    file = write_examples(tmp_path / "in", [candidate(name) for name in ids])
    embed_candidates(known.directory, known.spec, [file], str(tmp_path), one_worker)
    assert [row["item"] for row in rows(tmp_path)] == ids
    read = [
        name.as_py() for block in EmbeddingFiles(str(tmp_path), known.spec).ids() for name in block
    ]
    assert read == ids


@pytest.mark.parametrize("workers", [one_worker, pytest.param(two_workers, marks=pytest.mark.slow)])
def test_blocks_of_any_size_and_any_workers_give_the_same_rows_in_order(
    many_towers: Any, write_examples: WriteExamples, tmp_path: Path, workers: Any
) -> None:
    files = [
        write_examples(tmp_path / f"in{half}", [candidate(name, "x") for name in names])
        for half, names in enumerate((many_towers.ids[:130], many_towers.ids[130:]))
    ]
    spec = many_towers.spec
    embed_candidates(many_towers.directory, spec, files, str(tmp_path), workers, 60)
    read = EmbeddingFiles(str(tmp_path), spec)
    assert len(list(tmp_path.glob("*.parquet"))) == 6
    assert (read.num_candidates, read.dimension) == (300, 8)
    assert [row["item"].decode() for row in rows(tmp_path)] == many_towers.ids
    vectors = read.vectors(str(tmp_path / "vectors"))
    assert isinstance(vectors, np.memmap)
    np.testing.assert_allclose(vectors, many_towers.vectors, rtol=1e-6)


def test_repeated_candidate_ids_are_dropped(
    known: Any, write_examples: WriteExamples, tmp_path: Path
) -> None:
    first = write_examples(tmp_path / "1", [candidate("a", "x"), candidate("b"), candidate("a")])
    second = write_examples(tmp_path / "2", [candidate("b", "y")])
    third = write_examples(tmp_path / "3", [candidate("é ü"), candidate("a", "y")])
    files = [first, second, third]
    assert embed_candidates(known.directory, known.spec, files, str(tmp_path), one_worker) == 3
    assert [(row["item"].decode(), row["genres"]) for row in rows(tmp_path)] == [
        ("a", ["x"]),
        ("b", None),
        ("é ü", None),
    ]
    assert EmbeddingFiles(str(tmp_path), known.spec).num_candidates == 3


def test_vectors_that_are_not_finite_are_an_error_and_no_file_remains(
    make_towers: Callable[..., Any], write_examples: WriteExamples, tmp_path: Path
) -> None:
    broken = make_towers(
        {"a": [1.0, 2.0], "b": [3.0, float("nan")], "c": [float("inf"), 0.0]}, {"user": [1.0, 0.0]}
    )
    file = write_examples(tmp_path / "in", [candidate(name) for name in "abc"])
    out = tmp_path / "out"
    with pytest.raises(EmbeddingError, match=r"of 2 candidates .* infinity: b, c"):
        embed_candidates(broken.directory, broken.spec, [file], str(out), one_worker)
    assert list(out.iterdir()) == []


def test_an_empty_catalogue_is_an_error(
    known: Any, write_examples: WriteExamples, tmp_path: Path
) -> None:
    file = write_examples(tmp_path / "in", [])
    with pytest.raises(EmbeddingError, match="is empty"):
        embed_candidates(known.directory, known.spec, [file], str(tmp_path / "out"), one_worker)


def test_features_that_differ_from_those_of_the_model_are_an_error(
    known: Any, write_examples: WriteExamples, tmp_path: Path
) -> None:
    file = write_examples(tmp_path / "in", [candidate("a")])
    other = FeatureSpec.model_validate(
        {
            "columns": {"query_id": "user", "candidate_id": "item"},
            "features": {
                "query": {"age": {"kind": "numeric"}},
                "candidate": {"genres": {"kind": "categorical"}, "year": {"kind": "numeric"}},
            },
        }
    )
    with pytest.raises(ChangedFeaturesError, match="genres was string of rank 2 and is string of"):
        embed_candidates(known.directory, other, [file], str(tmp_path / "out"), one_worker)


def test_a_missing_file_is_an_error(
    many_towers: Any, write_examples: WriteExamples, tmp_path: Path
) -> None:
    file = write_examples(tmp_path / "in", [candidate(name) for name in many_towers.ids])
    spec = many_towers.spec
    embed_candidates(many_towers.directory, spec, [file], str(tmp_path), one_worker, 100)
    (tmp_path / "embeddings-00001-of-00003.parquet").unlink()
    with pytest.raises(EmbeddingFilesError, match="00002"):
        EmbeddingFiles(str(tmp_path), spec)
    with pytest.raises(EmbeddingFilesError, match="none"):
        EmbeddingFiles(str(tmp_path / "in"), spec)


@pytest.mark.parametrize("blessed", [True, False])
def test_the_component_embeds_only_with_a_blessed_model(
    many_towers: Any, many_examples: str, tmp_path: Path, blessed: bool
) -> None:
    blessing = artifact(standard_artifacts.ModelBlessing, tmp_path / "blessing")
    io_utils.write_string_file(
        str(tmp_path / "blessing" / ("BLESSED" if blessed else "NOT_BLESSED")), ""
    )
    blessing.set_int_custom_property("blessed", int(blessed))
    output = artifact(CandidateEmbeddings, tmp_path / "embeddings")

    def do() -> None:
        CandidateEmbedder.test_call(
            examples=artifact(standard_artifacts.Examples, many_examples),
            model=artifact(standard_artifacts.Model, Path(many_towers.directory).parent),
            model_blessing=blessing,
            embeddings=output,
            config=many_towers.spec.model_dump_json(),
            beam_pipeline=beam.Pipeline(),
        )

    if blessed:
        do()
        assert EmbeddingFiles(output.uri, many_towers.spec).num_candidates == 300
    else:
        with pytest.raises(NotBlessedError):
            do()
        assert not Path(output.uri).exists()
