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
from components.serving_validator.sample_queries import Questions
from components.serving_validator.validate import validate_serving
from components.serving_validator.warmup_replay import (
    Replay,
    replay_in_process,
    replay_on_server,
)
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
    """Gives its best candidate twice, with scores that are no numbers."""

    def recommend(self, **inputs: tf.Tensor) -> Outputs:
        answer = super().recommend(**inputs)
        ids, scores = answer["candidate_ids"], answer["scores"]
        return {
            "candidate_ids": tf.concat([ids[:, :1], ids[:, :1], ids[:, 2:]], axis=1),
            "scores": scores * float("nan"),
        }


class SeesPadding(RetrievalModel):
    """Answers another question where the batch has longer histories than one's own."""

    def recommend(self, **inputs: tf.Tensor) -> Outputs:
        width = tf.cast(tf.shape(inputs["history"])[1], tf.float32)
        age = tf.where(tf.math.is_nan(inputs["age"]), 0.0, inputs["age"])
        return super().recommend(**{**inputs, "age": age + width})


class AnotherWayForBatches(RetrievalModel):
    """Answers a query in a batch otherwise than alone, as an approximate index may."""

    def recommend(self, **inputs: tf.Tensor) -> Outputs:
        rows = tf.cast(tf.shape(inputs["age"])[0], tf.float32)
        age = tf.where(tf.math.is_nan(inputs["age"]), 0.0, inputs["age"])
        return super().recommend(**{**inputs, "age": age + 3.0 * rows})


class FaultyBesideTheDefault(RetrievalModel):
    """Excludes nothing, and has similar candidates worst first."""

    def recommend_excluding(self, **inputs: tf.Tensor) -> Outputs:
        exclude = tf.zeros_like(inputs["exclude"])
        return super().recommend_excluding(**{**inputs, "exclude": exclude})

    def similar(self, **inputs: tf.Tensor) -> Outputs:
        answer = super().similar(**inputs)
        return {name: values[:, ::-1] for name, values in answer.items()}


@pytest.fixture(scope="module")
def questions(many_towers: Any, many_examples: str) -> Questions:
    files = split_files(many_examples, "eval")
    return Questions.from_timelines(
        next(read_timelines(files, many_towers.spec, 6)), many_towers.spec
    )


@pytest.fixture
def saved(
    many_towers: Any, many_embeddings: EmbeddingFiles, questions: Questions, tmp_path: Path
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
            [("serving_default", questions.inputs)],
            identity="",
        )
        return directory

    return save


@pytest.fixture
def run_executor(
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
    saved: Callable[[type[RetrievalModel]], str], questions: Questions
):
    assert validate_serving(saved(RetrievalModel), questions, ServingConfig()) == []


def test_a_batch_is_held_against_a_batch(
    saved: Callable[[type[RetrievalModel]], str], questions: Questions
):
    assert validate_serving(saved(AnotherWayForBatches), questions, ServingConfig()) == []


def test_faults_of_every_signature_are_named(
    saved: Callable[[type[RetrievalModel]], str], questions: Questions
):
    # Two of them: more would push the later ones out of the first few that are shown.
    two = Questions(
        {name: values[:2] for name, values in questions.inputs.items()},
        questions.queries[:2],
        questions.query_id_name,
        questions.candidate_id_name,
    )
    problems = validate_serving(saved(FaultyBesideTheDefault), two, ServingConfig())
    assert problems[:2] == [
        f"query 'user {number}' with exclusions: an excluded candidate came back"
        for number in range(2)
    ]
    assert problems[2].startswith("similar to ")
    assert problems[2].endswith("not the best first")
    assert problems[-1] == "… and 5 more"


def test_a_warm_up_request_that_is_answered_otherwise_is_named(
    saved: Callable[[type[RetrievalModel]], str], questions: Questions
):
    directory = saved(RetrievalModel)
    [replay] = replay_in_process(directory, tf.saved_model.load(directory).signatures)
    other_ids = {**replay.expected, "candidate_ids": replay.expected["candidate_ids"][::-1]}
    other_scores = {**replay.expected, "scores": replay.expected["scores"] + 1}
    asked = [replay, Replay(replay.request, other_ids), Replay(replay.request, other_scores)]
    base = Path(directory).parent / "served"
    (base / "1").parent.mkdir()
    (base / "1").symlink_to(directory)
    with running_model_server(base, "other name") as server:
        problems = replay_on_server(asked, server.grpc_target, "other name", 10.0, 1e-3)
    assert problems == [
        "warm-up request 1 to serving_default: the server's candidate_ids differ from the model's",
        "warm-up request 2 to serving_default: the server's scores differ from the model's",
    ]


def test_an_answer_that_depends_on_the_rest_of_the_batch_is_named(
    saved: Callable[[type[RetrievalModel]], str], questions: Questions
):
    # The model in process is asked with all histories at once, padded to 7: some are shorter.
    shorter = [
        query if place % 2 else type(query)(query.query_id, query.history[:2], query.features)
        for place, query in enumerate(questions.queries)
    ]
    history = questions.inputs["history"].numpy()
    history[::2, 2:] = b""
    inputs = {**questions.inputs, "history": tf.constant(history)}
    asked = Questions(inputs, shorter, questions.query_id_name, questions.candidate_id_name)
    problems = validate_serving(saved(SeesPadding), asked, ServingConfig())
    assert problems[0] == "query 'user 0': the server's scores differ from the model's"
    assert not any("'user 1'" in problem for problem in problems)


def test_a_server_that_does_not_come_up_in_time_is_no_verdict_on_the_model(
    saved: Callable[[type[RetrievalModel]], str], questions: Questions
):
    # Another, or a quieter, machine may start it: an answer here would be kept by a cache.
    config = ServingConfig(startup_timeout_s=0.01)
    with pytest.raises(LaunchError, match=r"was not ready within 0\.01 s"):
        validate_serving(saved(RetrievalModel), questions, config)


def test_a_model_that_the_server_cannot_load_is_not_blessed_and_the_log_says_why(
    saved: Callable[[type[RetrievalModel]], str],
    run_executor: Callable[[str], standard_artifacts.InfraBlessing],
    tmp_path: Path,
):
    directory = saved(RetrievalModel)
    Path(directory, "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(LaunchError, match=r"saved_model\.pb"):
        run_executor(directory)
    assert not (tmp_path / "blessing").exists()


def test_executor_blesses_a_good_model_as_tfx_understands_it(
    saved: Callable[[type[RetrievalModel]], str],
    run_executor: Callable[[str], standard_artifacts.InfraBlessing],
):
    blessing = run_executor(saved(RetrievalModel))
    assert model_utils.is_infra_validated(blessing)
    assert [path.name for path in Path(blessing.uri).iterdir()] == ["INFRA_BLESSED"]


def test_executor_does_not_bless_a_faulty_model_and_writes_why(
    saved: Callable[[type[RetrievalModel]], str],
    run_executor: Callable[[str], standard_artifacts.InfraBlessing],
):
    blessing = run_executor(saved(Muddled))
    assert not model_utils.is_infra_validated(blessing)
    (file,) = Path(blessing.uri).iterdir()
    assert file.name == "INFRA_NOT_BLESSED"
    assert file.read_text().splitlines()[:2] == [
        "query 'user 0': a candidate came twice",
        "query 'user 0': a score is not a number",
    ]
