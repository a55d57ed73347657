"""Rows of ML Metadata as TFX writes them, without a word of ours."""

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd


class MetadataRows:
    """Writes what runs of one pipeline leave.

    Args:
        store: Gets the rows.
        name: Of the pipeline.
    """

    def __init__(self, store: MetadataStore, name: str) -> None:
        self.store = store
        self.name = name

    def context(self, type_name: str, name: str) -> int:
        """Returns a context, made if there is none yet."""
        type_id = self.store.put_context_type(mlmd.ContextType(name=type_name))
        found = self.store.get_context_by_type_and_name(type_name, name)
        if found is not None:
            return int(found.id)
        (made,) = self.store.put_contexts([mlmd.Context(type_id=type_id, name=name)])
        return int(made)

    def add_execution(self, run_id: str, component: str, state: "mlmd.Execution.State") -> int:
        """Returns a new execution of a component in a run."""
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
