"""A real server on good and on faulty models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.components.util import model_utils
from tfx.types import standard_artifacts

from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.index_builder.catalogue_files import CatalogueFiles
from components.index_builder.retrieval_model import RetrievalModel
from components.index_builder.saved_retrieval_model import save_retrieval_model
from components.index_builder.search_index import ExactIndex
from components.serving_validator.component import ServingValidator, ServingValidatorConfig
from components.serving_validator.config import ServingConfig
from components.serving_validator.expected_answers import (
    SampleQueries,
    WarmupAnswer,
    answer_warmup_requests,
)
from components.serving_validator.validate import check_warmup_requests, validate_serving
from models.input.raw_examples import read_timelines, split_files
from models.towers.saved_towers import SavedTowers
from serving.errors import LaunchError
from serving.launcher import running_model_server
from tests.builders import artifact

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
def samples(many_towers: Any, many_examples: str) -> SampleQueries:
    files = split_files(many_examples, "eval")
    return SampleQueries.from_timelines(
        next(read_timelines(files, many_towers.spec, 6)), many_towers.spec
    )


@pytest.fixture
def saved(
    many_towers: Any, many_embeddings: EmbeddingFiles, samples: SampleQueries, tmp_path: Path
) -> Callable[[type[RetrievalModel]], str]:
    def save(model: type[RetrievalModel]) -> str:
        catalogue = CatalogueFiles.write(many_embeddings, (), str(tmp_path))
        towers = SavedTowers(many_towers.directory, many_towers.spec)
        index = ExactIndex(many_towers.vectors)
        directory = str(tmp_path / "model" / "Format-Serving")
        save_retrieval_model(
            model(towers, index, catalogue, many_towers.spec, K),
            directory,
            "retrieval",
            [("serving_default", samples.inputs)],
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


def test_a_good_model_has_no_problems(
    saved: Callable[[type[RetrievalModel]], str], samples: SampleQueries
):
    assert validate_serving(saved(RetrievalModel), samples, ServingConfig()) == []


def test_a_batch_is_compared_with_a_batch(
    saved: Callable[[type[RetrievalModel]], str], samples: SampleQueries
):
    assert validate_serving(saved(DiffersInBatches), samples, ServingConfig()) == []


def test_problems_of_every_signature_are_listed(
    saved: Callable[[type[RetrievalModel]], str], samples: SampleQueries
):
    # With more than two, the later problems would not be among the first few.
    two = SampleQueries(
        {name: values[:2] for name, values in samples.inputs.items()},
        samples.queries[:2],
        samples.query_id_name,
        samples.candidate_id_name,
    )
    problems = validate_serving(saved(FaultyOtherSignatures), two, ServingConfig())
    assert problems[:2] == [
        f"query 'user {number}' with exclusions: the answer has an excluded candidate"
        for number in range(2)
    ]
    assert problems[2].startswith("similar to ")
    assert problems[2].endswith("not sorted by score")
    assert problems[-1] == "… and 5 more"


def test_a_different_answer_to_a_warm_up_request_is_listed(
    saved: Callable[[type[RetrievalModel]], str], samples: SampleQueries
):
    directory = saved(RetrievalModel)
    [answer] = answer_warmup_requests(directory, tf.saved_model.load(directory).signatures)
    other_ids = {**answer.outputs, "candidate_ids": answer.outputs["candidate_ids"][::-1]}
    other_scores = {**answer.outputs, "scores": answer.outputs["scores"] + 1}
    expected = [
        answer,
        WarmupAnswer(answer.request, other_ids),
        WarmupAnswer(answer.request, other_scores),
    ]
    base = Path(directory).parent / "served"
    (base / "1").parent.mkdir()
    (base / "1").symlink_to(directory)
    with running_model_server(base, "other name") as server:
        problems = check_warmup_requests(expected, server.grpc_target, "other name", 10.0)
    assert problems == [
        "warm-up request 1 to serving_default: the server's candidate_ids differ from the model's",
        "warm-up request 2 to serving_default: the server's scores differ from the model's",
    ]


def test_an_answer_that_depends_on_padding_is_listed(
    saved: Callable[[type[RetrievalModel]], str], samples: SampleQueries
):
    # The model in process gets all histories padded to 7, the server gets every other one with 2.
    shorter = [
        query if index % 2 else type(query)(query.query_id, query.history[:2], query.features)
        for index, query in enumerate(samples.queries)
    ]
    history = samples.inputs["history"].numpy()
    history[::2, 2:] = b""
    inputs = {**samples.inputs, "history": tf.constant(history)}
    asked = SampleQueries(inputs, shorter, samples.query_id_name, samples.candidate_id_name)
    problems = validate_serving(saved(SeesPadding), asked, ServingConfig())
    assert problems[0] == "query 'user 0': the server's scores differ from the model's"
    assert not any("'user 1'" in problem for problem in problems)


def test_a_server_that_does_not_start_in_time_gives_no_verdict(
    saved: Callable[[type[RetrievalModel]], str], samples: SampleQueries
):
    # It may start on another machine, so there must be no verdict that the cache would keep.
    config = ServingConfig(startup_timeout_s=0.01)
    with pytest.raises(LaunchError, match=r"was not ready within 0\.01 s"):
        validate_serving(saved(RetrievalModel), samples, config)


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
    assert [path.name for path in Path(blessing.uri).iterdir()] == ["INFRA_BLESSED"]


def test_the_component_does_not_bless_a_faulty_model_and_lists_the_problems(
    saved: Callable[[type[RetrievalModel]], str],
    run_component: Callable[[str], standard_artifacts.InfraBlessing],
):
    blessing = run_component(saved(Muddled))
    assert not model_utils.is_infra_validated(blessing)
    (file,) = Path(blessing.uri).iterdir()
    assert file.name == "INFRA_NOT_BLESSED"
    assert file.read_text().splitlines()[:2] == [
        "query 'user 0': the answer has a candidate twice",
        "query 'user 0': a score is not a finite number",
    ]
