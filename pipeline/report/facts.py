"""The facts of a run for its report, read from ML Metadata and from the artifacts of the run."""

import datetime
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from ml_metadata import MetadataStore

from components import files
from pipeline.config.project import PipelineConfig
from pipeline.report.verdict import limits, verdict
from pipeline.runs.comparison import differing_settings, flat
from pipeline.runs.history import RunHistory, RunRecord
from pipeline.runs.results import component_executions, live_outputs

FACTS_FILE = "report.json"
_PACKAGES = (
    *("two-tower-retrieval", "tfx", "tensorflow", "tf-keras", "tensorflow-recommenders"),
    *("tensorflow-transform", "apache-beam", "scann"),
)
_NUM_REJECTED = 20
_NUM_GROUPS = 8
_OTHER, _MISSING = "(other)", "(missing)"

Facts = dict[str, Any]
Vectors = npt.NDArray[np.floating[Any]]
# The URI of each output of a run, by component and key.
Folders = Mapping[tuple[str, str], str]


def report_folder(config: PipelineConfig, run_id: str) -> Path:
    """Return the folder for the report of a run."""
    return config.run_dir / "reports" / run_id


def gather(config: PipelineConfig, record: RunRecord, store: MetadataStore) -> Facts:
    """Return the facts of a run, which may have failed, as data for JSON.

    Sections of parts that the run did not reach are empty.
    """
    executions = component_executions(store, config.name, record.run_id)
    outputs = live_outputs(config, store, record.run_id)
    folders = {key: str(artifact.uri) for key, artifact in outputs.items()}
    summary = record.summary
    evaluation = _json(folders, "RetrievalEvaluator", "evaluation", "evaluation.json")
    settings = dict(flat(record.configuration or config.model_dump(mode="json", by_alias=True)))
    facts: Facts = {
        "project": config.name,
        "run": {**record.to_json(), "written": _now()},
        "components": [
            {name: execution[name] for name in ("component", "state", "seconds")}
            for execution in executions
        ],
        "log": str(config.run_dir / "logs" / f"{record.run_id}.log"),
        # Earlier releases did not write all that a page needs.
        "evaluation": evaluation if "gate_metric" in evaluation else {},
        "training": _json(folders, "Trainer", "model_run", "fit.json"),
        "warm_start": _json(folders, "Trainer", "model_run", "warm_start.json"),
        "ranking": _json(folders, "Trainer", "model_run", "ranking.json"),
        "tuning": summary.get("tuning") or {},
        # The outputs of a component that a gate stopped are only in the summary.
        "index": _json(folders, "IndexBuilder", "report", "index_report.json")
        or summary.get("index")
        or {},
        "drift": _json(folders, "DriftGate", "profile", "drift_report.json")
        or summary.get("drift")
        or {},
        "latencies_ms": _json(folders, "ServingValidator", "blessing", "latencies.json") or [],
        "data": _json(folders, "TimelineExampleGen", "report", "ingest_report.json")
        or _json(folders, "CatalogueExampleGen", "report", "ingest_report.json"),
        "rejected": _rejected(folders),
        "warnings": summary.get("warnings") or [],
        "settings": settings,
        "changes": _changes(config, record, store),
        **_samples(config, folders),
        "versions": _versions(),
    }
    return {**facts, "verdict": verdict(facts), "limits": limits(facts)}


def _json(folders: Folders, component: str, key: str, file: str) -> Any:
    """Return the content of a JSON file in an output; empty if the run has no such file."""
    path = _path(folders, component, key, file)
    return json.loads(files.read_text(path)) if path else {}


def _path(folders: Folders, component: str, key: str, file: str) -> str:
    path = os.path.join(folders.get((component, key), ""), file)
    return path if (component, key) in folders and files.exists(path) else ""


def _table(folders: Folders, component: str, key: str, file: str) -> Any:
    path = _path(folders, component, key, file)
    return pq.ParquetFile(files.open_to_read(path)) if path else None


def _rejected(folders: Folders) -> list[dict[str, Any]]:
    file = _table(folders, "TimelineExampleGen", "rejected", "rejected.parquet")
    batch = next(file.iter_batches(_NUM_REJECTED), None) if file is not None else None
    return [] if batch is None else list(batch.to_pylist())


def _samples(config: PipelineConfig, folders: Folders) -> Facts:
    """Return the example queries, the fields of the items in them, and the map of the items."""
    source = "RetrievalEvaluator", "evaluation"
    found = _json(folders, *source, "examples.json")
    file = _table(folders, *source, "items.parquet")
    if not found or file is None:
        return {"examples": [], "items": {}, "map": {"feature": "", "points": []}}
    spec = config.spec
    table = file.read()
    ids = [name.decode("utf-8", "replace") for name in table[spec.candidate_id].to_pylist()]
    fields = [name for name in spec.candidate_features if name in table.column_names]
    rows = dict(zip(ids, table.select(fields).to_pylist() or [{} for _ in ids], strict=True))
    examples = found["queries"]
    shown = {name for example in examples for name in _items_of(example)}
    number = found["num_popular"]
    vectors = np.array(table["embedding"].slice(0, number).to_pylist(), np.float64)
    categories = [
        name
        for name in fields
        if spec.candidate_features[name].kind == "categorical"
        and len({_group(row[name]) for row in rows.values()}) > 1
    ]
    mapped = ids[:number]
    points = project(vectors) if number > 2 else np.zeros((0, 2))
    groups = _groups([rows[name][categories[0]] for name in mapped] if categories else [])
    return {
        "examples": examples,
        "items": {
            name: {"name": _name(config, name, rows), "fields": rows[name]}
            for name in ids
            if name in shown
        },
        "map": {
            "feature": categories[0] if categories else "",
            "points": [
                {
                    "x": round(float(x), 4),
                    "y": round(float(y), 4),
                    "id": name,
                    "name": _name(config, name, rows),
                    "group": group,
                }
                for (x, y), name, group in zip(
                    points, mapped, groups or [""] * len(mapped), strict=len(points) > 0
                )
            ],
        },
    }


def _items_of(example: Mapping[str, Any]) -> Iterable[str]:
    yield from example["history"]
    yield from example["recommended"]
    yield from (event["id"] for event in example["held_out"])


def _name(config: PipelineConfig, item: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the first text feature of an item, or its ID."""
    features = config.spec.candidate_features.items()
    texts = (rows[item].get(name) for name, feature in features if feature.kind == "text")
    return next((str(text) for text in texts if text), item)


def _group(value: Any) -> str:
    first = (value[0] if value else None) if isinstance(value, list) else value
    return _MISSING if first in (None, "") else str(first)


def _groups(values: Sequence[Any]) -> list[str]:
    """Return the category of each item; rare ones are one category."""
    names = [_group(value) for value in values]
    counts = {name: names.count(name) for name in set(names)}
    kept = sorted(counts, key=lambda name: (-counts[name], name))[:_NUM_GROUPS]
    return [name if name in kept else _OTHER for name in names]


def project(vectors: Vectors) -> Vectors:
    """Place vectors `[n, dimension]` in a plane `[n, 2]`, so that similar ones are close.

    References:
        van der Maaten, Hinton. Visualizing Data using t-SNE. JMLR, 2008.
    """
    from sklearn.manifold import TSNE  # slow to import

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    place = TSNE(
        metric="cosine", perplexity=perplexity, max_iter=300, init="random", random_state=42
    )
    points: Vectors = place.fit_transform(vectors)
    return points


def _changes(config: PipelineConfig, record: RunRecord, store: MetadataStore) -> Facts:
    """Return the settings that differ from those of the run before this one."""
    before = [
        found
        for found in RunHistory(store, config.name).records()
        # The store has the time of the first component, which is not exactly that of the record.
        if found.run_id != record.run_id
        and found.started_s < record.started_s
        and (found.command, bool(found.configuration)) == (record.command, True)
    ]
    if not before or not record.configuration:
        return {"since": None, "settings": {}}
    configurations = before[-1].configuration, record.configuration
    return {"since": before[-1].run_id, "settings": differing_settings(configurations)}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
