"""The pipeline: which components, in which order, with what of the configuration."""

import tensorflow_data_validation as tfdv
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.pusher.component import Pusher
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.transform.component import Transform
from tfx.dsl.components.base import executor_spec
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.io import fileio
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.proto import pusher_pb2, transform_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel

from components.anomaly_gate.executor import Executor as AnomalyGateExecutor
from components.atomic_pusher.executor import Executor as AtomicPusherExecutor
from components.blessed_model import (
    EXAMPLES_KEY,
    INGEST_REPORT_KEY,
    MODEL_BLESSING_KEY,
    MODEL_KEY,
    BlessedModelStrategy,
)
from components.candidate_embedder.component import CandidateEmbedder
from components.candidate_embedder.spec import CandidateEmbedderConfig
from components.catalogue_example_gen.component import CatalogueExampleGen
from components.drift_gate.component import DriftGate
from components.drift_gate.spec import DATA_DIRECTORY_KEY, DriftGateConfig
from components.in_process.statistics_executor import Executor as StatisticsExecutor
from components.in_process.transform_executor import Executor as TransformExecutor
from components.index_builder.component import IndexBuilder
from components.index_builder.spec import IndexBuilderConfig
from components.interactions.sources.files import fingerprint
from components.interactions.spans.choice import choose_spans
from components.retrieval_evaluator.component import RetrievalEvaluator
from components.retrieval_evaluator.spec import EvaluatorConfig
from components.schema_importer.component import SchemaImporter
from components.serving_validator.component import ServingValidator
from components.serving_validator.spec import ServingValidatorConfig
from components.timeline_example_gen.artifacts import IngestReport
from components.timeline_example_gen.component import TimelineExampleGen
from models.features.preprocessing import QUERY_VOCABULARY_KEY, SPEC_KEY
from pipeline.code_hash import CODE_HASH_KEY, code_hash
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.fitting import fitting_components
from pipeline.orchestrators.target import LocalSite, Site
from pipeline.runs.drift_baseline import last_let_pass
from pipeline.runs.metadata import connection_config

_INGESTION_CODE = (
    "components/timeline_example_gen",
    "components/beam_results.py",
    "models/features/spec.py",
)
# The node of a refresh that finds what was fitted before.
BLESSED_MODEL = "BlessedModel"
# Real questions for the index's recall and for the check of the server.
_QUERY_SPLIT = "eval"


def create_pipeline(
    config: PipelineConfig, *, enable_cache: bool = True, site: LocalSite | None = None
) -> tfx_pipeline.Pipeline:
    """Wires the components of one use: from the input files to a pushed model.

    Args:
        config: The use.
        site: This machine, where something of it is known already.
        enable_cache: Whether a component whose inputs and code are unchanged is skipped.

    Raises:
        ConfigError: The schema's file is missing, or Beam's workers would not see the artifacts.
    """
    _check_workers(config)
    return _pipeline(config, create_components(config, site), enable_cache=enable_cache)


def create_refresh_pipeline(config: PipelineConfig) -> tfx_pipeline.Pipeline:
    """Wires an index refresh: from the catalogue's files to a pushed model that was fitted before.

    It has the name of the whole pipeline, so that it finds its artifacts and shares its cache.

    Raises:
        ConfigError: The schema's file is missing, there is no catalogue file to read, or Beam's
            workers would not see the artifacts.
    """
    _check_workers(config)
    return _pipeline(config, create_refresh_components(config), enable_cache=True)


def _check_workers(config: PipelineConfig) -> None:
    if config.beam.has_only_remote_workers:
        raise ConfigError(
            f"`beam.runner: {config.beam.runner}`: its workers see no file below `runs`, where "
            "artifacts lie with this machine's orchestrators; use `two-tower compile --runner "
            "kubeflow` or `vertex` with --pipeline-root gs://…, or another `beam.runner`"
        )


def _pipeline(
    config: PipelineConfig, components: list[BaseNode], *, enable_cache: bool
) -> tfx_pipeline.Pipeline:
    return tfx_pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(config.run_dir / "artifacts"),
        components=components,
        enable_cache=enable_cache,
        metadata_connection_config=connection_config(config),
        beam_pipeline_args=config.beam.pipeline_args,
    )


def create_components(config: PipelineConfig, site: Site | None = None) -> list[BaseNode]:
    """Returns the components in the order of the flow.

    Args:
        config: The use.
        site: Where they run; this machine if absent.

    Raises:
        ConfigError: The schema's file is missing.
    """
    site = site or LocalSite(config)
    spec = config.spec
    models_hash = code_hash("models")

    example_gen = TimelineExampleGen(
        site.ingest.data,
        config.columns,
        config.features,
        site.ingest.split,
        chosen_spans=site.ingest.chosen_spans,
        input_fingerprint=":".join([site.input_fingerprint, code_hash(*_INGESTION_CODE)]),
        **site.ingestion_parameters,
    )
    examples = example_gen.outputs["examples"]
    statistics_gen, schema_gen, validator = _schema_components(config, examples, site.schema_file)
    drift_gates = _drift_gates(config, site, examples)
    transform = Transform(
        examples=examples,
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="models.features.preprocessing.preprocessing_fn",
        # What a cut holds out must stay invisible to vocabularies and moments, and only what is
        # trained on is needed transformed: evaluation asks the exported model with raw features.
        splits_config=transform_pb2.SplitsConfig(
            analyze=["train", "candidates"], transform=["train", "candidates"]
        ),
        disable_statistics=True,
        disable_analyzer_cache=True,
        custom_config={
            SPEC_KEY: spec.model_dump_json(),
            QUERY_VOCABULARY_KEY: config.model.query_id_embedding,
            CODE_HASH_KEY: code_hash(
                "models/features/preprocessing.py",
                "models/features/spec.py",
                "components/in_process",
            ),
        },
    )
    transform.executor_spec = executor_spec.BeamExecutorSpec(TransformExecutor)
    transform.add_upstream_node(validator)
    for drift_gate in drift_gates:
        drift_gate.add_upstream_node(validator)
        transform.add_upstream_node(drift_gate)
    *searching, trainer = fitting_components(config, site, transform, schema_gen.outputs["schema"])
    last_blessed = site.last_blessed_model(trainer.outputs["model"])
    evaluator = RetrievalEvaluator(
        examples=examples,
        model=trainer.outputs["model"],
        last_blessed_model=last_blessed.outputs["model"],
        # Of a model that was found without ML Metadata its own properties tell.
        last_blessing=last_blessed.outputs.get("model_blessing"),
        config=EvaluatorConfig(
            spec=spec,
            evaluation=config.evaluation.for_split(
                config.split.method, has_times=config.columns.timestamp is not None
            ),
            code_hash=code_hash(
                "components/retrieval_evaluator",
                "components/interactions/splits/held_out.py",
                "components/interactions/stable_hash.py",
            )
            + models_hash,
        ),
    )
    serving = serving_components(
        config,
        catalogue=examples,
        timelines=examples,
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        serving_dir=site.serving_dir,
    )
    return [
        example_gen,
        statistics_gen,
        schema_gen,
        validator,
        *drift_gates,
        transform,
        *searching,
        trainer,
        last_blessed,
        evaluator,
        *serving,
        *site.after_push(
            model=trainer.outputs["model"],
            examples=examples,
            fitted_examples=transform.outputs["transformed_examples"],
            pushed_model=serving[-1].outputs["pushed_model"],
        ),
    ]


def create_refresh_components(config: PipelineConfig) -> list[BaseNode]:
    """Returns the components of an index refresh in the order of the flow."""
    ingest = choose_spans(config.ingestion, ["candidates"])
    if ingest.data.candidates is None:
        raise ConfigError(
            "an index refresh reads the catalogue anew, and the configuration names none: set "
            "`candidates.file`, or run the whole pipeline"
        )
    blessed_model = Resolver(
        strategy_class=BlessedModelStrategy,
        **{
            MODEL_KEY: Channel(type=standard_artifacts.Model),
            MODEL_BLESSING_KEY: Channel(type=standard_artifacts.ModelBlessing),
            EXAMPLES_KEY: Channel(type=standard_artifacts.Examples),
            INGEST_REPORT_KEY: Channel(type=IngestReport),
        },
    ).with_id(BLESSED_MODEL)
    example_gen = CatalogueExampleGen(
        ingest,
        fitted_report=blessed_model.outputs[INGEST_REPORT_KEY],
        input_fingerprint=":".join(
            [
                fingerprint(ingest, ["candidates"]),
                code_hash("components/catalogue_example_gen", *_INGESTION_CODE),
            ]
        ),
    )
    examples = example_gen.outputs["examples"]
    statistics_gen, schema_gen, validator = _schema_components(config, examples, config.schema_file)
    serving = serving_components(
        config,
        catalogue=examples,
        timelines=blessed_model.outputs[EXAMPLES_KEY],
        model=blessed_model.outputs[MODEL_KEY],
        model_blessing=blessed_model.outputs[MODEL_BLESSING_KEY],
        serving_dir=config.serving_dir,
    )
    serving[0].add_upstream_node(validator)
    return [blessed_model, example_gen, statistics_gen, schema_gen, validator, *serving]


def _drift_gates(config: PipelineConfig, site: Site, examples: BaseChannel) -> list[BaseNode]:
    """Returns the component that compares spans, where it is wanted."""
    if config.drift.action == "off":
        return []
    gate_config = DriftGateConfig(
        use=config.name,
        ingest=site.ingest,
        drift=config.drift,
        baseline="" if site.profiles_dir else last_let_pass(config),
        profiles=site.profiles_dir,
        code_hash=code_hash(
            "components/drift_gate",
            "components/in_process",
            "components/blessings.py",
            *_INGESTION_CODE,
        ),
    )
    return [DriftGate(examples, gate_config, site.ingestion_parameters.get(DATA_DIRECTORY_KEY))]


def _schema_components(
    config: PipelineConfig, examples: BaseChannel, schema_file: str
) -> tuple[BaseNode, BaseNode, BaseNode]:
    """Returns the components that hold Examples against the curated schema."""
    statistics_gen = StatisticsGen(
        examples=examples,
        # Top values from a sketch: exact up to 16,000 different ones, and a third of the work.
        stats_options=tfdv.StatsOptions(use_sketch_based_topk_uniques=True),
    )
    statistics_gen.executor_spec = executor_spec.BeamExecutorSpec(StatisticsExecutor)
    if not fileio.exists(config.schema_file):
        raise ConfigError(
            f"there is no schema at {config.schema_file}; write a first one with "
            "`two-tower schema infer` and read it, or name another in `schema.file`"
        )
    # Under the name of the component whose place it takes.
    schema_gen = SchemaImporter(config.schema_file, schema_file).with_id("ImportSchemaGen")
    validator = ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    validator.executor_spec = executor_spec.ExecutorClassSpec(AnomalyGateExecutor)
    return statistics_gen, schema_gen, validator


def serving_components(
    config: PipelineConfig,
    *,
    catalogue: BaseChannel,
    timelines: BaseChannel,
    model: BaseChannel,
    model_blessing: BaseChannel,
    serving_dir: str,
) -> list[BaseNode]:
    """Returns the components that bring a model and a catalogue into service, in order.

    Args:
        config: The use.
        catalogue: Examples with the split `candidates`.
        timelines: Examples with real questions.
        model: The fitted towers.
        model_blessing: Of the evaluation.
        serving_dir: Base path of the served versions; the pusher comes last.
    """
    spec = config.spec
    models_hash = code_hash("models")
    embedder = CandidateEmbedder(
        examples=catalogue,
        model=model,
        model_blessing=model_blessing,
        config=CandidateEmbedderConfig(
            spec=spec,
            code_hash=code_hash(
                "components/candidate_embedder",
                "components/beam_results.py",
                "components/blessings.py",
                "components/interactions/stable_hash.py",
            )
            + models_hash,
        ),
    )
    index_builder = IndexBuilder(
        examples=timelines,
        embeddings=embedder.outputs["embeddings"],
        model=model,
        model_blessing=model_blessing,
        config=IndexBuilderConfig(
            spec=spec,
            index=config.index,
            query_split=_QUERY_SPLIT,
            model_name=config.serving.model_name,
            code_hash=code_hash(
                "components/index_builder",
                "components/candidate_embedder/embedding_files.py",
                "components/folder_digest.py",
                "components/blessings.py",
            )
            + models_hash,
        ),
    )
    serving_validator = ServingValidator(
        examples=timelines,
        model=index_builder.outputs["retrieval_model"],
        config=ServingValidatorConfig(
            spec=spec,
            serving=config.serving,
            query_split=_QUERY_SPLIT,
            code_hash=code_hash("components/serving_validator", "serving"),
        ),
    )
    pusher = Pusher(
        model=index_builder.outputs["retrieval_model"],
        model_blessing=model_blessing,
        infra_blessing=serving_validator.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=serving_dir)
        ),
        custom_executor_spec=executor_spec.ExecutorClassSpec(AtomicPusherExecutor),
    )
    return [embedder, index_builder, serving_validator, pusher]
