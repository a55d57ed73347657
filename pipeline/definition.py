"""The pipeline: its components, their order, and the part of the configuration that each gets."""

from collections.abc import Callable
from typing import Any

import tensorflow_data_validation as tfdv
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.pusher.component import Pusher
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.transform.component import Transform
from tfx.dsl.components.base import executor_spec
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.proto import pusher_pb2, transform_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel

from components import files
from components.artifacts import IngestReport
from components.batch_recommender.component import BatchRecommender, BatchRecommenderConfig
from components.blessed_models.resolvers import (
    EXAMPLES_KEY,
    INGEST_REPORT_KEY,
    MODEL_BLESSING_KEY,
    MODEL_KEY,
    NewestBlessedModelStrategy,
)
from components.candidate_embedder.component import CandidateEmbedder
from components.catalogue_example_gen.component import CatalogueExampleGen
from components.drift_gate.component import DriftGate, DriftGateConfig
from components.index_builder.component import IndexBuilder, IndexBuilderConfig
from components.interactions.sources.files import fingerprint
from components.interactions.spans.choice import choose_spans
from components.retrieval_evaluator.component import EvaluatorConfig, RetrievalEvaluator
from components.schema_importer.component import SchemaImporter, hash_of_schema
from components.serving_validator.component import ServingValidator, ServingValidatorConfig
from components.stock.example_validator import Executor as AnomalyGateExecutor
from components.stock.pusher import MAX_REMOVED_KEY
from components.stock.pusher import Executor as AtomicPusherExecutor
from components.stock.statistics_gen import CODE_HASH_KEY
from components.stock.statistics_gen import Executor as StatisticsExecutor
from components.stock.transform import Executor as TransformExecutor
from components.timeline_example_gen.component import TimelineExampleGen
from models.features.preprocessing import QUERY_VOCABULARY_KEY, SPEC_KEY
from models.settings import Settings
from pipeline.code_hash import code_hash, is_ours
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.fitting import fitting_components
from pipeline.orchestrators.target import Target
from pipeline.runs.earlier_runs import last_accepted_spans
from pipeline.runs.metadata import connection_config

# The node of an index refresh that finds the fitted model.
BLESSED_MODEL = "BlessedModel"
# Parameters of stock components that name one of our functions by its dotted path.
_FUNCTION_KEYS = ("preprocessing_fn", "run_fn", "tuner_fn")
# The split with real queries for the index's recall and for the serving validator.
_QUERY_SPLIT = "eval"


def create_pipeline(
    config: PipelineConfig,
    *,
    enable_cache: bool = True,
    target: Target | None = None,
    push: bool = True,
) -> tfx_pipeline.Pipeline:
    """Return the whole pipeline of a project: from the input files to a pushed model.

    The cache skips components whose inputs and code are unchanged. A `target` is given if the spans
    of the run are chosen already. Without `push`, it ends before the components that change what is
    served, and has no drift gate, which would accept spans.

    Raises:
        ConfigError: The schema file is missing, or Beam's workers would not see the artifacts.
    """
    _check_beam(config)
    components = create_components(config, target, push=push)
    return _pipeline(config, components, enable_cache=enable_cache)


def create_refresh_pipeline(config: PipelineConfig) -> tfx_pipeline.Pipeline:
    """Return the pipeline of an index refresh: from the catalogue's files to a pushed model.

    It serves a model that an earlier run has fitted. It has the same name as the whole pipeline,
    so that both use the same artifacts and cache.

    Raises:
        ConfigError: The schema file is missing, there is no catalogue file to read, or Beam's
            workers would not see the artifacts.
    """
    _check_beam(config)
    return _pipeline(config, _refresh_components(config), enable_cache=True)


def _check_beam(config: PipelineConfig) -> None:
    if config.beam.has_only_remote_workers:
        raise ConfigError(
            "Beam's workers must be able to read the files under `runs`, but those of "
            f"`beam.runner: {config.beam.runner}` run elsewhere; choose another `beam.runner`, or "
            "use `two-tower compile --runner kubeflow` or `vertex` with --pipeline-root gs://…"
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


def create_components(
    config: PipelineConfig, target: Target | None = None, *, push: bool = True
) -> list[BaseNode]:
    """Return the components of the whole pipeline, in order, for this machine or another target.

    For `push`, see `create_pipeline`.

    Raises:
        ConfigError: The schema file is missing.
    """
    target = target or Target(config)
    example_gen = _configured(
        TimelineExampleGen,
        target.ingest,
        input_fingerprint=target.input_fingerprint,
        **target.ingestion_parameters,
    )
    examples = example_gen.outputs["examples"]
    checks = _schema_components(config, examples, target.schema_file)
    _, schema_gen, validator = checks
    if config.drift.action != "off" and push:
        drift_gate = _drift_gate(config, target, examples)
        drift_gate.add_upstream_node(validator)
        checks.append(drift_gate)
    transform = Transform(
        examples=examples,
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="models.features.preprocessing.preprocessing_fn",
        # Held-out events must not influence vocabularies and moments. They are not transformed
        # either, because evaluation uses the exported model, which takes raw features.
        splits_config=transform_pb2.SplitsConfig(
            analyze=["train", "candidates"], transform=["train", "candidates"]
        ),
        disable_statistics=True,
        disable_analyzer_cache=True,
        custom_config={
            SPEC_KEY: config.spec.model_dump(mode="json"),
            QUERY_VOCABULARY_KEY: config.needs_query_vocabulary,
        },
    )
    transform.executor_spec = executor_spec.BeamExecutorSpec(TransformExecutor)
    for gate in checks[2:]:
        transform.add_upstream_node(gate)
    *before, trainer = fitting_components(config, target, transform, schema_gen.outputs["schema"])
    last_blessed = target.last_blessed_model(trainer.outputs["model"])
    evaluator = _configured(
        RetrievalEvaluator,
        EvaluatorConfig(
            spec=config.spec,
            evaluation=config.evaluation.for_split(config.split.method, config.spec),
            left_out=config.evaluation.left_out(config.split.method, config.spec),
            weights=config.evaluation_weights,
        ),
        examples=examples,
        model=trainer.outputs["model"],
        last_blessed_model=last_blessed.outputs["model"],
        # On a cluster there is no blessing: the model's own properties have what the gate needs.
        last_blessing=last_blessed.outputs.get(MODEL_BLESSING_KEY),
    )
    serving = _serving_components(
        config,
        catalogue=examples,
        timelines=examples,
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        serving_dir=target.serving_dir if push else None,
    )
    nodes = [example_gen, *checks, transform, *before, trainer, last_blessed, evaluator, *serving]
    for pusher in [node for node in serving if node.id == "Pusher"]:
        nodes += target.after_push(
            model=trainer.outputs["model"],
            examples=examples,
            fitted_examples=transform.outputs["transformed_examples"],
            pushed_model=pusher.outputs["pushed_model"],
        )
    return _with_code_hashes(nodes)


def _refresh_components(config: PipelineConfig) -> list[BaseNode]:
    ingest = choose_spans(config.ingestion, ["candidates"])
    if ingest.data.candidates is None:
        raise ConfigError(
            "an index refresh needs a catalogue file, but `candidates.file` is not set: set it, or "
            "run the whole pipeline"
        )
    blessed_model = Resolver(
        strategy_class=NewestBlessedModelStrategy,
        **{
            MODEL_KEY: Channel(type=standard_artifacts.Model),
            MODEL_BLESSING_KEY: Channel(type=standard_artifacts.ModelBlessing),
            EXAMPLES_KEY: Channel(type=standard_artifacts.Examples),
            INGEST_REPORT_KEY: Channel(type=IngestReport),
        },
    ).with_id(BLESSED_MODEL)
    example_gen = _configured(
        CatalogueExampleGen,
        ingest,
        fitted_report=blessed_model.outputs[INGEST_REPORT_KEY],
        input_fingerprint=fingerprint(ingest, ["candidates"]),
    )
    examples = example_gen.outputs["examples"]
    checks = _schema_components(config, examples, config.schema_file)
    serving = _serving_components(
        config,
        catalogue=examples,
        timelines=blessed_model.outputs[EXAMPLES_KEY],
        model=blessed_model.outputs[MODEL_KEY],
        model_blessing=blessed_model.outputs[MODEL_BLESSING_KEY],
        serving_dir=config.serving_dir,
    )
    serving[0].add_upstream_node(checks[-1])
    return _with_code_hashes([blessed_model, example_gen, *checks, *serving])


def _with_code_hashes(nodes: list[BaseNode]) -> list[BaseNode]:
    """Add a hash of its code to the parameters of each node, so that the cache notices edits."""
    for node in nodes:
        modules = [
            node.exec_properties[key].rpartition(".")[0]
            for key in _FUNCTION_KEYS
            if node.exec_properties.get(key)
        ]
        if isinstance(node.executor_spec, executor_spec.ExecutorClassSpec):
            modules.append(node.executor_spec.executor_class.__module__)
        modules = [module for module in modules if is_ours(module)]
        if modules:
            # TFX accepts parameters that a component does not declare, also on Kubeflow.
            node.exec_properties[CODE_HASH_KEY] = code_hash(*modules)
    return nodes


def _configured(component: Callable[..., BaseNode], config: Settings, **arguments: Any) -> BaseNode:
    return component(config=config.model_dump_json(), **arguments)


def _drift_gate(config: PipelineConfig, target: Target, examples: BaseChannel) -> BaseNode:
    gate_config = DriftGateConfig(
        project=config.name,
        ingest=target.ingest,
        drift=config.drift,
        reference="" if target.profiles_dir else last_accepted_spans(config),
        profiles=target.profiles_dir,
    )
    return _configured(
        DriftGate,
        gate_config,
        examples=examples,
        data_directory=target.ingestion_parameters.get("data_directory"),
    )


def _schema_components(
    config: PipelineConfig, examples: BaseChannel, schema_file: str
) -> list[BaseNode]:
    """Return the components that validate Examples against the curated schema, in order."""
    statistics_gen = StatisticsGen(
        examples=examples,
        # A sketch finds the most frequent values in a third of the time. It is exact for up to
        # 16,000 distinct values.
        stats_options=tfdv.StatsOptions(use_sketch_based_topk_uniques=True),
    )
    statistics_gen.executor_spec = executor_spec.BeamExecutorSpec(StatisticsExecutor)
    if not files.exists(config.schema_file):
        raise ConfigError(
            f"there is no schema at {config.schema_file}; write a first one with "
            "`two-tower schema infer` and review it, or set `schema.file`"
        )
    schema_gen = SchemaImporter(
        schema_file=schema_file, schema_hash=hash_of_schema(config.schema_file)
    ).with_id("ImportSchemaGen")  # the stock component that it replaces
    validator = ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"]
    )
    validator.executor_spec = executor_spec.ExecutorClassSpec(AnomalyGateExecutor)
    return [statistics_gen, schema_gen, validator]


def _serving_components(
    config: PipelineConfig,
    *,
    catalogue: BaseChannel,
    timelines: BaseChannel,
    model: BaseChannel,
    model_blessing: BaseChannel,
    serving_dir: str | None,
) -> list[BaseNode]:
    """Return the components that embed, index, validate, push and recommend, in order.

    `catalogue` has the candidates and `timelines` has real queries. If `serving_dir` is None, the
    list ends with validation.
    """
    embedder = _configured(
        CandidateEmbedder,
        config.spec,
        examples=catalogue,
        model=model,
        model_blessing=model_blessing,
    )
    index_builder = _configured(
        IndexBuilder,
        IndexBuilderConfig(
            spec=config.spec,
            index=config.index,
            query_split=_QUERY_SPLIT,
            model_name=config.serving.model_name,
            return_fields=config.serving.return_fields,
            known_histories=config.serving.known_histories,
            known_histories_max_mb=config.serving.known_histories_max_mb,
            splits=config.split.split_names[:-1],
        ),
        examples=timelines,
        embeddings=embedder.outputs["embeddings"],
        model=model,
        model_blessing=model_blessing,
    )
    serving_validator = _configured(
        ServingValidator,
        ServingValidatorConfig(spec=config.spec, serving=config.serving, query_split=_QUERY_SPLIT),
        examples=timelines,
        model=index_builder.outputs["retrieval_model"],
    )
    nodes = [embedder, index_builder, serving_validator]
    if serving_dir is None:
        return nodes
    pusher = Pusher(
        model=index_builder.outputs["retrieval_model"],
        model_blessing=model_blessing,
        infra_blessing=serving_validator.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=serving_dir)
        ),
        custom_config={MAX_REMOVED_KEY: config.candidates.max_removed},
    )
    pusher.executor_spec = executor_spec.ExecutorClassSpec(AtomicPusherExecutor)
    nodes.append(pusher)
    if config.batch.enabled:
        recommender_config = BatchRecommenderConfig(
            spec=config.spec,
            batch=config.batch,
            index_k=config.index.k,
            splits=config.split.split_names[:-1],
        )
        recommender = _configured(
            BatchRecommender,
            recommender_config,
            examples=timelines,
            model=index_builder.outputs["retrieval_model"],
            pushed_model=pusher.outputs["pushed_model"],
        )
        nodes.append(recommender)
    return nodes
