"""A real server on good and on faulty models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.components.util import model_utils
from tfx.types import standard_artifacts

from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.catalogue_files import CatalogueFiles
from components.index_builder.export import save_retrieval_model
from components.index_builder.search_index import ExactIndex
from components.index_builder.served_signatures import RetrievalModel
from components.serving_validator.component import ServingValidator, ServingValidatorConfig
from components.serving_validator.config import ServingConfig
from components.serving_validator.validate import (
    check_requests,
    requests_of,
    validate_serving,
)
from models.input.raw_examples import read_timelines, split_files
from models.towers.saved_towers import SavedTowers
from serving.errors import LaunchError
from serving.launcher import running_model_server
from tests.builders import DESCRIBED_SPEC, artifact

# Every test here starts a model server, which takes some seconds.
pytestmark = pytest.mark.slow

K = 10
Outputs = dict[str, tf.Tensor]


class Muddled(RetrievalModel):
    """Returns its best candidate twice, with scores that are not numbers."""

    def recommend(self, **inputs: tf.Tensor) -> Outputs:
        answer = super().recommend(**inputs)
        ids, scores = answer["candidate_ids"], answer["scores"]
        return {
            "candidate_ids": tf.concat([ids[:, :1], ids[:, :1], ids[:, 2:]], axis=1),
            "scores": scores * float("nan"),
        }


class SeesPadding(RetrievalModel):
    """Gives answers that depend on the padding of histories."""

    def recommend(self, **inputs: tf.Tensor) -> Outputs:
        width = tf.cast(tf.shape(inputs["history"])[1], tf.float32)
        age = tf.where(tf.math.is_nan(inputs["age"]), 0.0, inputs["age"])
        return super().recommend(**{**inputs, "age": age + width})


class DiffersInBatches(RetrievalModel):
    """Answers a query in a batch differently than alone, as an approximate index may."""

    def recommend(self, **inputs: tf.Tensor) -> Outputs:
        rows = tf.cast(tf.shape(inputs["age"])[0], tf.float32)
        age = tf.where(tf.math.is_nan(inputs["age"]), 0.0, inputs["age"])
        return super().recommend(**{**inputs, "age": age + 3.0 * rows})


class FaultyOtherSignatures(RetrievalModel):
    """Excludes nothing, and returns similar candidates worst first."""

    def recommend_excluding(self, **inputs: tf.Tensor) -> Outputs:
        exclude = tf.zeros_like(inputs["exclude"])
        return super().recommend_excluding(**{**inputs, "exclude": exclude})

    def similar(self, **inputs: tf.Tensor) -> Outputs:
        answer = super().similar(**inputs)
        return {name: values[:, ::-1] for name, values in answer.items()}


@pytest.fixture(scope="module")
def queries(many_towers: Any, many_examples: str) -> Outputs:
    files = split_files(many_examples, "eval")
    return next(read_timelines(files, many_towers.spec, 6)).inputs


@pytest.fixture
def validate(many_towers: Any, queries: Outputs) -> Callable[..., list[str]]:
    """Return the problems of a saved model, asked with `queries` or others."""

    def run(directory: str, inputs: Outputs = queries, **settings: Any) -> list[str]:
        config = ServingConfig(**settings)
        return validate_serving(directory, inputs, many_towers.spec, config).problems

    return run


@pytest.fixture
def saved(
    many_towers: Any, many_embeddings: EmbeddingFiles, queries: Outputs, tmp_path: Path
) -> Callable[[type[RetrievalModel]], str]:
    def save(model: type[RetrievalModel]) -> str:
        fields = {"title": DESCRIBED_SPEC.catalogue_features["title"]}
        catalogue = CatalogueFiles.write(many_embeddings, (), str(tmp_path), fields)
        towers = SavedTowers(many_towers.directory, many_towers.spec)
        index = ExactIndex(many_towers.vectors)
        directory = str(tmp_path / "model" / "Format-Serving")
        save_retrieval_model(
            model(towers, index, catalogue, many_towers.spec, K),
            directory,
            "retrieval",
            [("serving_default", queries)],
            identity="",
        )
        return directory

    return save


@pytest.fixture
def run_component(
    many_towers: Any, many_examples: str, tmp_path: Path
) -> Callable[[str], standard_artifacts.InfraBlessing]:
    def run(directory: str) -> standard_artifacts.InfraBlessing:
        blessing = artifact(standard_artifacts.InfraBlessing, tmp_path / "blessing")
        config = ServingValidatorConfig(
            spec=many_towers.spec,
            serving=ServingConfig(validation_requests=2, startup_timeout_s=15),
            query_split="eval",
        )
        ServingValidator.test_call(
            examples=artifact(standard_artifacts.Examples, many_examples),
            model=artifact(standard_artifacts.Model, Path(directory).parent),
            blessing=blessing,
            config=config.model_dump_json(),
        )
        return blessing

    return run


Saved = Callable[[type[RetrievalModel]], str]
Validate = Callable[..., list[str]]


# The second one answers a batch differently, and is compared with its own answer to a batch.
@pytest.mark.parametrize("model", [RetrievalModel, DiffersInBatches])
def test_a_good_model_has_no_problems(
    saved: Saved, validate: Validate, model: type[RetrievalModel]
):
    assert validate(saved(model)) == []


def test_problems_of_every_signature_are_listed(saved: Saved, validate: Validate, queries: Outputs):
    # With more than two, the later problems would not be among the first few.
    two = {name: values[:2] for name, values in queries.items()}
    problems = validate(saved(FaultyOtherSignatures), two)
    assert problems[:2] == [
        f"query 'user {number}' with exclusions: the answer has a candidate that must not be in it"
        for number in range(2)
    ]
    assert problems[2].startswith("similar to ")
    assert problems[2].endswith("not sorted by score")
    assert problems[-1] == "… and 5 more"


def test_a_different_answer_is_listed(saved: Saved, many_towers: Any, queries: Outputs):
    directory = saved(RetrievalModel)
    *_, warmup = requests_of(directory, queries, many_towers.spec)
    other_ids = {name: of if name == "scores" else of[::-1] for name, of in warmup.expected.items()}
    other_scores = {**warmup.expected, "scores": warmup.expected["scores"] + 1}
    other_titles = {**warmup.expected, "title": warmup.expected["title"][:, ::-1]}
    # Candidates with equal scores may change places, with their titles.
    swapped = {
        name: values if name == "scores" else values[:, [1, 0, *range(2, K)]]
        for name, values in warmup.expected.items()
    }
    requests = [
        warmup,
        replace(warmup, expected=swapped),
        replace(warmup, expected=other_titles),
        replace(warmup, expected=other_ids),
        replace(warmup, expected=other_scores, label="another"),
    ]
    base = Path(directory).parent / "served"
    (base / "1").parent.mkdir()
    (base / "1").symlink_to(directory)
    with running_model_server(base, "other_name") as server:
        config = ServingConfig(model_name="other_name")
        problems = check_requests(requests, server.grpc_target, config).problems
    assert problems == [
        "warm-up request 0 to serving_default: the server's title differ from the model's",
        "warm-up request 0 to serving_default: the server's candidate_ids differ from the model's",
        "another: the server's scores differ from the model's",
    ]


def test_an_answer_that_depends_on_padding_is_listed(
    saved: Saved, validate: Validate, queries: Outputs
):
    # The model in process gets all histories padded to the longest one, the server does not.
    history = queries["history"].numpy()
    history[::2, 2:] = b""
    problems = validate(saved(SeesPadding), {**queries, "history": tf.constant(history)})
    assert problems[0].startswith("query 'user 0': the server's ")
    assert problems[0].endswith("scores differ from the model's")
    assert not any("'user 1'" in problem for problem in problems)


def test_a_server_that_does_not_start_in_time_gives_no_verdict(saved: Saved, validate: Validate):
    # It may start on another machine, so there must be no verdict that the cache would keep.
    with pytest.raises(LaunchError, match=r"was not ready within 0\.01 s"):
        validate(saved(RetrievalModel), startup_timeout_s=0.01)


def test_a_model_that_the_server_cannot_load_is_not_blessed(
    saved: Callable[[type[RetrievalModel]], str],
    run_component: Callable[[str], standard_artifacts.InfraBlessing],
    tmp_path: Path,
):
    directory = saved(RetrievalModel)
    Path(directory, "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(LaunchError, match=r"saved_model\.pb"):
        run_component(directory)
    assert not (tmp_path / "blessing").exists()


def test_the_component_blesses_a_good_model(
    saved: Callable[[type[RetrievalModel]], str],
    run_component: Callable[[str], standard_artifacts.InfraBlessing],
):
    blessing = run_component(saved(RetrievalModel))
    assert model_utils.is_infra_validated(blessing)
    latencies = Path(blessing.uri) / "latencies.json"
    assert {path.name for path in Path(blessing.uri).iterdir()} == {"INFRA_BLESSED", latencies.name}
    # The two queries and the unknown one; the warm-up request has several rows.
    found = json.loads(latencies.read_text())
    assert len(found) == 3
    assert min(found) > 0


def test_the_component_does_not_bless_a_faulty_model_and_lists_the_problems(
    saved: Callable[[type[RetrievalModel]], str],
    run_component: Callable[[str], standard_artifacts.InfraBlessing],
):
    blessing = run_component(saved(Muddled))
    assert not model_utils.is_infra_validated(blessing)
    file = Path(blessing.uri) / "INFRA_NOT_BLESSED"
    assert file.read_text().splitlines()[:2] == [
        "the queries in a batch: the answer has a candidate twice",
        "the queries in a batch: a score is not a finite number",
    ]
