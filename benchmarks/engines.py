"""Compare the Beam components on Flink, with one and two task managers, with the DirectRunner.

The data are MovieLens 100K and a synthetic log (`_growth_log.py`). Examples, vocabularies and
vectors must equal those of the DirectRunner. Each component runs in a new process. CPU includes the
cluster and its workers, but not the start of the cluster. Times exclude the imports of the
component's process, but not those of Flink's workers, which each job starts. On Flink, statistics
and transformation use Beam even for small data.

Usage: python benchmarks/engines.py [--json] [--only DATA] [--events 1000000]

It needs the jars that `make test-engines` downloads, and MovieLens from `two-tower data`.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import psutil

from benchmarks._processes import component, measure_call
from benchmarks._report import Row, options_parser, row, run
from benchmarks.growth import Log
from tests.engines.flink import flink_cluster, why_absent

STAGES = ("TimelineExampleGen", "StatisticsGen", "ImportSchemaGen", "ExampleValidator", "Transform")
TRAINING = (
    "Trainer",
    "LastBlessedModel",
    "RetrievalEvaluator",
    "CandidateEmbedder",
    "IndexBuilder",
)
IN_BEAM = ("TimelineExampleGen", "StatisticsGen", "Transform", "embedding", "recommending")
# Any model will do.
SHORT = (
    "training.epochs=1", "ranking.enabled=false", "evaluation.min_lift=0",
    "evaluation.min_metrics={}", "evaluation.baselines=[popularity]", "evaluation.max_queries=1000",
    "index.backend=exact", "index.latency_budget_ms=1000",
)  # fmt: skip
ENGINES = {"direct": 0, "flink_1": 1, "flink_2": 2}  # with the number of task managers
DATA = ("ml100k", "growth")


def component_in_beam(name: str, config: str, *settings: str) -> Callable[[], None]:
    """Return a function that runs a component, on Beam's workers even if the data is small."""
    from components.stock import in_process

    in_process.SMALL_BYTES = 0
    return component(name, config, *settings)


def embedding(direct: str, config: str, *settings: str) -> Callable[[], None]:
    """Return a function that embeds the catalogue with the model of the DirectRunner's run."""
    import apache_beam as beam
    from tfx.utils import path_utils

    from components.candidate_embedder.embed import embed_candidates
    from models.input.raw_examples import split_files
    from pipeline.config.file import load
    from pipeline.runs.batch import ingested_examples

    loaded = load(config, settings)
    model = path_utils.serving_model_path(str(_artifact(Path(direct), "Trainer/model")))
    sources = split_files(ingested_examples(loaded, None), "candidates")
    output = Path(loaded.runs, "embeddings")
    output.mkdir()
    return lambda: embed_candidates(
        model,
        loaded.spec,
        sources,
        str(output),
        lambda: beam.Pipeline(argv=loaded.beam.pipeline_args),
    )


def recommending(direct: str, config: str, *settings: str) -> Callable[[], Any]:
    """Return a function that writes recommendations of the model of the DirectRunner's run."""
    from tfx.utils import path_utils

    from pipeline.config.file import load
    from pipeline.releases.answering_model import AnsweringModel
    from pipeline.runs.batch import recommend_all

    loaded = load(config, settings)
    path = path_utils.serving_model_path(
        str(_artifact(Path(direct), "IndexBuilder/retrieval_model"))
    )
    model = AnsweringModel(path, None, "")
    return lambda: recommend_all(loaded, model, str(Path(loaded.runs, "recommendations")), k=20)


class Outputs(NamedTuple):
    """A hash of the Examples and vocabularies of a run, and the vectors `[n, dim]`."""

    digest: str
    vectors: Any


def read_outputs(runs: Path) -> Outputs:
    """Read the outputs of a run."""
    import pyarrow.parquet as pq

    from models.towers.export import EMBEDDING_KEY
    from tests.builders import read_examples

    total = hashlib.sha256()
    for folder in sorted(_artifact(runs, "TimelineExampleGen/examples").glob("Split-*")):
        for example in read_examples(folder):
            total.update(example)
    assets = _artifact(runs, "Transform/transform_graph") / "transform_fn" / "assets"
    for path in sorted(assets.iterdir()):
        total.update(path.read_bytes())
    vectors = pq.read_table(runs / "embeddings").column(EMBEDDING_KEY).to_pylist()
    return Outputs(total.hexdigest(), np.array(vectors))


def engine_rows(label: str, config: str, folder: Path) -> Iterator[Row]:
    """Measure the components on each engine; the DirectRunner also trains the model."""
    expected: Outputs | None = None
    for engine, num_task_managers in ENGINES.items():
        runs = folder / engine
        steps = {name: ("component_in_beam", name) for name in STAGES}
        if not num_task_managers:
            steps |= {name: ("component_in_beam", name) for name in TRAINING}
        steps |= {name: (name, str(folder / "direct")) for name in ("embedding", "recommending")}
        yield from step_rows(f"{label}_{engine}", config, runs, num_task_managers, steps)
        found = read_outputs(runs)
        expected = expected or found
        if found.digest != expected.digest:
            sys.exit(f"the Examples or vocabularies of {label} differ on {engine} and DirectRunner")
        np.testing.assert_allclose(found.vectors, expected.vectors, rtol=1e-5, atol=1e-6)


def step_rows(
    label: str,
    config: str,
    runs: Path,
    num_task_managers: int,
    steps: Mapping[str, tuple[str, str]],
) -> Iterator[Row]:
    """Measure steps, each a function of this module and its argument, on a new cluster."""
    runs.mkdir(parents=True)
    with ExitStack() as stack:
        settings = [f"runs={runs}", *SHORT]
        if num_task_managers:
            cluster = stack.enter_context(flink_cluster(runs, num_task_managers))
            settings += cluster.engine.settings
        for name, (function, argument) in steps.items():
            before_s = _children_cpu_s()
            measured = measure_call(
                f"benchmarks.engines:{function}", argument, config, *settings,
                log=runs / f"{name}.log",
            )  # fmt: skip
            if name in IN_BEAM:
                cpu_s = measured["cpu_s"] + _children_cpu_s() - before_s
                yield row(f"{name}_wall_{label}", measured["wall_s"], "s")
                yield row(f"{name}_cpu_{label}", cpu_s, "s")


def _artifact(runs: Path, output: str) -> Path:
    (path,) = runs.glob(f"*/artifacts/{output}/*")
    return path


def _children_cpu_s() -> float:
    """Return the CPU seconds of the running child processes and of their finished ones."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # its parent has its times now
    return total


def rows(options: Any, folder: Path) -> Iterator[Row]:
    if reason := why_absent():
        print(f"skipped: {reason}", file=sys.stderr)
        return
    data = [options.only] if options.only else DATA
    if "ml100k" in data:
        yield from engine_rows("ml100k", "movielens_100k", folder / "ml100k")
    if "growth" in data:
        log = Log(folder, options.events)
        yield from engine_rows("growth", str(log.config), folder / "growth")


if __name__ == "__main__":
    parser = options_parser(__doc__)
    parser.add_argument("--only", choices=DATA, help="measure only this data")
    parser.add_argument("--events", type=int, default=1_000_000, help="size of the synthetic log")
    run(parser, rows, "apache-beam", "tfx", "tensorflow")
