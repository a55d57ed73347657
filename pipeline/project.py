"""A project for notebooks and scripts: run it, read its results, and ask its models."""

import datetime
import html
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

import models  # noqa: F401 - chooses Keras 2 before TensorFlow is imported
from components.index_builder.loaded_model import LoadedModel
from components.index_builder.served_signatures import (
    RECOMMEND_EXCLUDING,
    SERVING_DEFAULT,
    SIMILAR_CANDIDATES,
    allow_key,
)
from components.interactions.timelines.histories import read_queries
from models.features.spec import EXCLUDE_KEY, HISTORY_KEY
from models.input.raw_examples import split_files
from models.towers.export import EMBED_QUERY, EMBEDDING_KEY
from models.towers.saved_towers import SavedTowers
from pipeline.config.file import load
from pipeline.errors import EvaluationError, PipelineError
from pipeline.releases.answering_model import AnsweringModel, answering_model
from pipeline.report.facts import report_folder
from pipeline.report.page import PAGE_FILE, write_report
from pipeline.runs.batch import ingested_examples, recommend_all
from pipeline.runs.comparison import compare_runs
from pipeline.runs.history import find_run, records_of
from pipeline.runs.metadata import open_store
from pipeline.runs.results import live_outputs, with_results
from pipeline.source_lookup import describe_candidates, known_query, served_ids

_TWO_TOWER = "from pipeline.cli.main import main; main()"
_ROOT = Path(__file__).resolve().parents[1]
_REFUSED = 3
_EVALUATION = ("RetrievalEvaluator", "evaluation")


class Embeddings(NamedTuple):
    """IDs, and their vectors `[len(ids), dimension]`."""

    ids: list[str]
    vectors: npt.NDArray[np.float32]


class Report(NamedTuple):
    """The HTML report of a run, which a notebook shows inline."""

    path: Path

    def _repr_html_(self) -> str:
        # In a frame, the page does not change the notebook's own styles.
        page = html.escape(self.path.read_text("utf-8"))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 80vh; border: 0"></iframe>'


class Project:
    """One configured project.

    A model is that of `run`, which may be the first characters of a run ID; else the stable version
    or, if none was promoted, the newest pushed one. Methods raise `PipelineError`, and
    those that read data `IngestError` or `BatchError`, with the message of the command line.

        project = Project("films", {"training.epochs": 5})
        project.run(name="five epochs")
        project.metrics().filter(pl.col("metric") == "ndcg@10")
        project.recommend("42", k=5)

    Args:
        config: Name of a configuration in `configs/`, or a path that ends in .yaml.
        overrides: Values of settings by dotted name, as with `--set`.
    """

    def __init__(self, config: str | Path, overrides: Mapping[str, Any] | None = None) -> None:
        self._name = str(config)
        self._overrides = [f"{name}={json.dumps(of)}" for name, of in (overrides or {}).items()]
        self.config = load(self._name, self._overrides)
        self._load = lru_cache(maxsize=2)(LoadedModel)

    def run(
        self,
        *,
        name: str = "",
        push: bool | None = None,
        fresh: bool = False,
        force: bool = False,
    ) -> dict[str, Any]:
        """Run the pipeline in a process of its own, and return the summary of `run --json`.

        With overrides or a name, the run is an experiment, which is not pushed unless `push` is
        true. A run that a gate refuses returns a summary with its `error`.
        """
        words = ["run", "--config", self._name, "--json", "--quiet"]
        words += [word for override in self._overrides for word in ("--set", override)]
        words += ["--name", name] if name else []
        words += [] if push is None else ["--push" if push else "--no-push"]
        words += [f"--{flag}" for flag, given in (("fresh", fresh), ("force", force)) if given]
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [sys.executable, "-c", _TWO_TOWER, *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        if done.returncode not in (0, _REFUSED):
            raise PipelineError(done.stderr.strip().removeprefix("error: "))
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    def runs(self) -> pl.DataFrame:
        """Return one row per run, newest first."""
        records = records_of(self.config)[::-1]
        found = with_results(open_store(self.config), records) if records else []
        rows = []
        for record in found:
            summary = record.summary
            metric = summary.get("gate_metric") or self.config.evaluation.baseline_metric
            started = datetime.datetime.fromtimestamp(record.started_s, datetime.timezone.utc)
            rows.append(
                {
                    "run": record.run_id,
                    "name": record.name,
                    "command": record.command,
                    "state": record.state,
                    "started": started,
                    "seconds": record.ended_s - record.started_s if record.ended_s else None,
                    "span": record.span,
                    "is_experiment": record.is_experiment,
                    "overrides": record.overrides,
                    "metric": metric,
                    "value": summary.get("metrics", {}).get("model", {}).get(metric),
                    "version": summary.get("pushed_version"),
                    "problem": record.problem,
                }
            )
        return pl.DataFrame(rows, schema=_RUNS)

    def metrics(self, run: str | None = None) -> pl.DataFrame:
        """Return the metrics of the rankers of a run, by default of the newest that has some.

        The columns are `ranker`, `metric`, `exclude_seen` and `value`, and for the metric of the
        gate the ends of its interval, `low` and `high`.
        """
        report = json.loads((self._evaluation(run) / "evaluation.json").read_text("utf-8"))
        rows = []
        for key, is_configured in (("metrics", True), ("metrics_other", False)):
            for ranker, values in report[key].items():
                for metric, value in values.items():
                    is_gate = is_configured and metric == report["gate_metric"]
                    interval = report["intervals"][ranker] if is_gate else {}
                    rows.append(
                        {
                            "ranker": ranker,
                            "metric": metric,
                            "exclude_seen": report["exclude_seen"] == is_configured,
                            "value": value,
                            "low": interval.get("low"),
                            "high": interval.get("high"),
                        }
                    )
        return pl.DataFrame(rows, schema=_METRICS)

    def cases(self, run: str | None = None) -> pl.DataFrame:
        """Return the rank of each held-out event by each ranker (`cases.parquet`)."""
        return pl.read_parquet(self._evaluation(run) / "cases.parquet")

    def compare(self, *runs: str) -> dict[str, Any]:
        """Compare runs with the first one; see `pipeline.runs.comparison.compare_runs`."""
        return compare_runs(self.config, runs)

    def report(self, run: str | None = None) -> Report:
        """Return the report of a run, by default of the newest one; see `two-tower report`."""
        record = records_of(self.config)[-1:] if run is None else [find_run(self.config, run)]
        if not record:
            raise EvaluationError(f"there has been no run of {self.config.name}")
        path = report_folder(self.config, record[0].run_id) / PAGE_FILE
        return Report(path if path.exists() else write_report(self.config, record[0]))

    def candidate_embeddings(self, run: str | None = None) -> Embeddings:
        """Return the vectors of the catalogue, whose dot products with a query are its scores."""
        model = self._model(run)
        examples = ingested_examples(self.config, model.run)
        towers = SavedTowers(model.path, self.config.spec)
        ids, vectors = towers.embed_catalogue(split_files(examples, "candidates"))
        return Embeddings(_texts(ids), vectors)

    def query_embeddings(self, run: str | None = None) -> Embeddings:
        """Return the vectors of all queries that have events, from their complete histories."""
        model, spec = self._model(run), self.config.spec
        examples = ingested_examples(self.config, model.run)
        splits = [split_files(examples, name) for name in self.config.split.split_names[:-1]]
        loaded = self._load(model.path)
        ids: list[str] = []
        vectors = []
        for bucket in zip(*splits, strict=True):
            queries = read_queries(bucket, spec)
            for rows in queries.slices(512, 1 << 18):
                inputs = queries.inputs(spec, rows)
                ids += _texts(inputs[spec.query_id].numpy())
                vectors.append(loaded.answer(EMBED_QUERY, inputs)[EMBEDDING_KEY])
        return Embeddings(ids, np.concatenate(vectors))

    def recommend(
        self,
        query_id: str = "",
        *,
        history: Sequence[str] | None = None,
        features: Mapping[str, Any] | None = None,
        exclude: Sequence[str] = (),
        filters: Mapping[str, Sequence[str]] = {},
        k: int = 10,
        include_seen: bool = False,
        run: str | None = None,
    ) -> pl.DataFrame:
        """Recommend candidates in this process, without a server.

        The history and the features of a query are read from the input files, unless they are
        given. The columns are `rank`, the candidate ID, `score` and the features of the candidates.
        """
        asked = known_query(self.config, query_id, history, exclude, include_seen=include_seen)
        inputs = {
            **{name: [value] for name, value in {**asked.features, **(features or {})}.items()},
            self.config.spec.query_id: [asked.query_id],
            HISTORY_KEY: [list(asked.history)],
        }
        signature = SERVING_DEFAULT
        if asked.exclude or filters:
            signature = RECOMMEND_EXCLUDING
            inputs[EXCLUDE_KEY] = [list(asked.exclude)]
        return self._answer(signature, inputs, filters, k, run)

    def similar(
        self,
        candidate_id: str,
        *,
        filters: Mapping[str, Sequence[str]] = {},
        k: int = 10,
        run: str | None = None,
    ) -> pl.DataFrame:
        """Return the candidates that are most similar to one, in the form of `recommend`."""
        inputs = {self.config.spec.candidate_id: served_ids(self.config, [candidate_id])}
        return self._answer(SIMILAR_CANDIDATES, inputs, filters, k, run)

    def recommend_all(
        self, output: str | Path, *, k: int = 50, run: str | None = None, **options: Any
    ) -> pl.DataFrame:
        """Write recommendations for many queries, and read them; see `two-tower batch`.

        Args:
            output: Folder for the files.
            k: Number of candidates for each query.
            run: See `Project`.
            options: `exclude_seen`, `filters` and `queries`, as in
                `pipeline.runs.batch.recommend_all`.
        """
        recommend_all(self.config, self._model(run), str(output), k=k, **options)
        return pl.read_parquet(Path(output) / "*.parquet")

    def _model(self, run: str | None) -> AnsweringModel:
        return answering_model(self.config, run=run)

    def _answer(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        filters: Mapping[str, Sequence[str]],
        k: int,
        run: str | None,
    ) -> pl.DataFrame:
        model = self._load(self._model(run).path)
        width = model.width(signature)
        if width is not None and k > width and width >= self.config.index.k:
            raise PipelineError(f"k must be at most `index.k: {width}`, got {k}")
        unknown = [name for name in filters if allow_key(name) not in model.inputs(signature)]
        if unknown:
            raise PipelineError(f"the model has no filter {unknown[0]!r}; see `index.filters`")
        allowed = {allow_key(name): [list(values)] for name, values in filters.items()}
        found = model.answer(signature, {**inputs, **allowed})
        ids = [name for name in _texts(found["candidate_ids"][0, :k]) if name]
        described = describe_candidates(self.config, ids)
        columns: dict[str, Any] = {
            "rank": range(1, len(ids) + 1),
            self.config.spec.candidate_id: ids,
            "score": found["scores"][0, : len(ids)],
        }
        for name in self.config.spec.catalogue_features:
            columns[name] = [described.get(item, {}).get(name) for item in ids]
        return pl.DataFrame(columns)

    def _evaluation(self, run: str | None) -> Path:
        """Return the folder with the evaluation of a run."""
        wanted = records_of(self.config) if run is None else [find_run(self.config, run)]
        for record in reversed(wanted):
            outputs = live_outputs(self.config, open_store(self.config), record.run_id)
            found = outputs.get(_EVALUATION)
            if found is not None:
                return Path(found.uri)
        raise EvaluationError(
            f"{'no run' if run is None else f'run {run}'} of {self.config.name} has an evaluation"
        )


_RUNS: dict[str, Any] = {
    "run": pl.String,
    "name": pl.String,
    "command": pl.String,
    "state": pl.String,
    "started": pl.Datetime("us", "UTC"),
    "seconds": pl.Float64,
    "span": pl.String,
    "is_experiment": pl.Boolean,
    "overrides": pl.List(pl.String),
    "metric": pl.String,
    "value": pl.Float64,
    "version": pl.Int64,
    "problem": pl.String,
}
_METRICS: dict[str, Any] = {
    "ranker": pl.String,
    "metric": pl.String,
    "exclude_seen": pl.Boolean,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


def _texts(values: npt.NDArray[Any]) -> list[str]:
    return [value.decode("utf-8", "surrogateescape") for value in values.tolist()]
