"""The models and baselines that the explorer can ask, each of which starts when first asked."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.config.project import PipelineConfig
from pipeline.errors import ReleaseError
from pipeline.explore.rankers import BaselineRanker, Ranker, Scores, ServedModel
from pipeline.explore.source import Items
from pipeline.releases.answering_model import AnsweringModel
from pipeline.runs.history import records_of
from serving.clients.grpc_client import RetrievalClient
from serving.clients.model import encode_text

# A client and the model that answers it, for a version or for a run.
Connected = AbstractContextManager[tuple[RetrievalClient, AnsweringModel]]
Connect = Callable[[int | None, str | None], Connected]

DEFAULT = ""
_VERSION, _RUN, _BASELINE = "version-", "run-", "baseline-"
_NUM_LISTED = 20
# A model takes the memory of a server process.
_MAX_STARTED = 3
_CANDIDATES_PER_BATCH = 4096


class Choices:
    """The rankers of a project, by key. Close it to stop the servers.

    Args:
        connect: Returns the client of a version or of a run; with two None, of the default model.
        versions: Versions that can be asked, in ascending order.
        run: ID of the run whose training events the baselines count; None for the newest one.
        has_runs: Whether models of runs that were not pushed can be asked.
    """

    def __init__(
        self,
        config: PipelineConfig,
        items: Items,
        connect: Connect,
        versions: Sequence[int],
        run: str | None,
        *,
        has_runs: bool,
    ) -> None:
        self._config, self._items, self._connect, self._run = config, items, connect, run
        self._lock = threading.Lock()
        self._started: OrderedDict[str, tuple[ExitStack, ServedModel, str]] = OrderedDict()
        # The key of the version or run that is the default model, once that has started.
        self._default: str | None = None
        self._baselines: dict[str, BaselineRanker] = {}
        newest = list(versions)[-_NUM_LISTED:][::-1]
        self.labels = {f"{_VERSION}{number}": f"version {number}" for number in newest}
        if has_runs:
            self.labels |= _unpushed_runs(config, versions)
        baselines = ["popularity", "item_knn", "session_knn", "sequential_rules"]
        if len(items) <= config.evaluation.max_ease_candidates:
            baselines.append("ease")
        self.labels |= {f"{_BASELINE}{name}": f"baseline {name}" for name in baselines}

    def __enter__(self) -> "Choices":
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._started:
            self._started.popitem()[1][0].close()

    def ranker(self, key: str) -> tuple[Ranker, str]:
        """Return the ranker with a key, and its description; see `model`."""
        if key.startswith(_BASELINE) and key in self.labels:
            return self._baseline(key.removeprefix(_BASELINE)), self.labels[key]
        return self.model(key)

    def model(self, key: str) -> tuple[ServedModel, str]:
        """Return the model with a key, or the default one for a baseline; and its description.

        Raises:
            ReleaseError: There is no model or baseline with that key.
        """
        key = DEFAULT if key.startswith(_BASELINE) and key in self.labels else key
        if key != DEFAULT and key not in self.labels:
            known = ", ".join(list(self.labels)[:5])
            raise ReleaseError(f"there is no model or baseline {key!r}; there are {known} …")
        with self._lock:
            key = DEFAULT if key == self._default else key
            if key not in self._started:
                while len(self._started) >= _MAX_STARTED:
                    oldest = next(of for of in self._started if of != DEFAULT)
                    self._started.pop(oldest)[0].close()
                version = int(key.removeprefix(_VERSION)) if key.startswith(_VERSION) else None
                run = key.removeprefix(_RUN) if key.startswith(_RUN) else None
                with ExitStack() as stack:
                    client, answering = stack.enter_context(self._connect(version, run))
                    model = ServedModel(client, self._config, self._items)
                    self._started[key] = stack.pop_all(), model, str(answering)
                if key == DEFAULT:
                    version, run = answering.version, answering.run
                    self._default = f"{_VERSION}{version}" if version else f"{_RUN}{run}"
            self._started.move_to_end(key)
            _, model, description = self._started[key]
        return model, description

    def _baseline(self, name: str) -> BaselineRanker:
        from components.retrieval_evaluator.baselines.fitting import make_baselines
        from components.retrieval_evaluator.baselines.interface import Histories

        with self._lock:
            if name not in self._baselines:
                ids, index, training = self._training
                score_all = make_baselines([name], training)[name]  # type: ignore[list-item]

                def score(histories: Sequence[Sequence[str]]) -> Scores:
                    events = index([encode_text(item) for of in histories for item in of])
                    rows = np.repeat(np.arange(len(histories)), [len(of) for of in histories])
                    found = score_all(Histories(len(histories), rows, events))
                    scores: Scores = found.first(len(ids)).dense()
                    return scores

                self._baselines[name] = BaselineRanker(score, ids, self._items)
        return self._baselines[name]

    @cached_property
    def _training(self) -> tuple[list[str], Any, Any]:
        """The candidates, their indices and the training events."""
        # Imported here, because only baselines need TensorFlow.
        from components.retrieval_evaluator.baselines.interface import (
            CandidateIndex,
            read_training_events,
        )
        from models.input.raw_examples import read_candidates, split_files
        from pipeline.runs.batch import ingested_examples

        spec = self._config.spec
        examples = ingested_examples(self._config, self._run)
        batches = read_candidates(split_files(examples, "candidates"), spec, _CANDIDATES_PER_BATCH)
        ids = np.concatenate([batch[spec.candidate_id].numpy() for batch in batches])
        index = CandidateIndex(ids)
        training, _ = read_training_events(
            split_files(examples, "train"), spec, index.add, len(ids), frozenset()
        )
        return [name.decode("utf-8", "surrogateescape") for name in ids], index, training


def _unpushed_runs(config: PipelineConfig, versions: Sequence[int]) -> dict[str, str]:
    """Return labels of the newest runs whose model is not among the pushed versions, by key."""
    records = [
        record
        for record in reversed(records_of(config))
        if record.state in ("complete", "refused")
        and record.summary.get("pushed_version") not in versions
    ]
    return {
        f"{_RUN}{of.run_id}": f"run {of.run_id} ({', '.join(filter(None, [of.name, of.state]))})"
        for of in records[:_NUM_LISTED]
    }
