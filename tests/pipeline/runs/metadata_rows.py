"""Write rows to ML Metadata as TFX does."""

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd


class MetadataRows:
    """Writes the executions and artifacts of the runs of one pipeline, `name`."""

    def __init__(self, store: MetadataStore, name: str) -> None:
        self.store = store
        self.name = name

    def context(self, type_name: str, name: str) -> int:
        """Return the ID of a context, created if it does not exist."""
        type_id = self.store.put_context_type(mlmd.ContextType(name=type_name))
        found = self.store.get_context_by_type_and_name(type_name, name)
        if found is not None:
            return int(found.id)
        (made,) = self.store.put_contexts([mlmd.Context(type_id=type_id, name=name)])
        return int(made)

    def add_execution(self, run_id: str, component: str, state: "mlmd.Execution.State") -> int:
        """Add an execution of a component in a run, and return its ID."""
        pipeline, run = self.context("pipeline", self.name), self.context("pipeline_run", run_id)
        if pipeline not in {p.id for p in self.store.get_parent_contexts_by_context(run)}:
            self.store.put_parent_contexts([mlmd.ParentContext(child_id=run, parent_id=pipeline)])
        type_id = self.store.put_execution_type(mlmd.ExecutionType(name=component))
        (execution,) = self.store.put_executions(
            [mlmd.Execution(type_id=type_id, last_known_state=state)]
        )
        contexts = (pipeline, run, self.context("node", f"{self.name}.{component}"))
        self.store.put_attributions_and_associations(
            [], [mlmd.Association(execution_id=execution, context_id=c) for c in contexts]
        )
        return int(execution)

    def add_output(
        self, execution: int, type_name: str, uri: str = "", **properties: int | str
    ) -> int:
        """Add an output of an execution with custom properties, and return its ID."""
        type_id = self.store.put_artifact_type(mlmd.ArtifactType(name=type_name))
        artifact = mlmd.Artifact(type_id=type_id, uri=uri, state=mlmd.Artifact.LIVE)
        for name, value in properties.items():
            if isinstance(value, int):
                artifact.custom_properties[name].int_value = value
            else:
                artifact.custom_properties[name].string_value = value
        (made,) = self.store.put_artifacts([artifact])
        self.put_out(execution, made)
        return int(made)

    def put_out(self, execution: int, artifact: int) -> None:
        """Record that an artifact is an output of an execution, perhaps from the cache."""
        event = mlmd.Event(artifact_id=artifact, execution_id=execution, type=mlmd.Event.OUTPUT)
        self.store.put_events([event])
