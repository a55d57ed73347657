"""The settings of one project, with checks across sections."""

from collections.abc import Mapping, Sequence

from pydantic import model_validator

from components.drift_gate.config import DistanceConfig
from components.interactions.config import IngestConfig
from components.interactions.spans.pattern import span_kind
from components.retrieval_evaluator.config import NEED_TIMES, categorical_features
from models.config import HoldoutMetric, RangeConfig
from models.features.spec import ALLOW_PREFIX, EVENT_TYPE_KEY, RATING_KEY
from models.tuning.search_space import check_space
from pipeline.config.sections import Sections
from pipeline.errors import did_you_mean


class PipelineConfig(Sections):
    """The settings of one project whose sections fit together."""

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "PipelineConfig":
        # Constructing IngestConfig validates the inputs and the split against each other.
        spec = self.spec
        IngestConfig(data=self.data, split=self.split, spec=spec)
        for name in self.evaluation.targets:
            known = [kind for kind, weight in self.events.types.items() if weight > 0]
            what = "types with a weight above 0 in `events.types`"
            _check_known("evaluation.targets", what, name, known)
        if self.events.context and self.training.objective != "next_candidate":
            raise ValueError(
                "`events.context` belongs to the event that is predicted from those before it: set "
                f"`training.objective: next_candidate`, got {self.training.objective}"
            )
        for section, entity in (("queries", self.queries), ("candidates", self.candidates)):
            if entity.features and not entity.file:
                raise ValueError(
                    f"`{section}.features` needs the file that holds them: set `{section}.file`, "
                    f"or remove {', '.join(entity.features)}"
                )
        for name in spec.availability:
            needs = {
                "candidates.file": self.candidates.file,
                "events.timestamp": self.events.timestamp,
            }
            if missing := [need for need, given in needs.items() if given is None]:
                raise ValueError(
                    f"`candidates.{name}` needs `{missing[0]}`: set it, or remove "
                    f"`candidates.{name}`"
                )
        splits = self.split.split_names
        _check_known(
            "evaluation.split", "a split that `split` makes", self.evaluation.split, splits
        )
        self._check_filters()
        self._check_return_fields()
        kinds: dict[str, str] = {name: f.kind for name, f in spec.query_features.items()}
        kinds[spec.candidate_id] = "categorical"
        _check_distances("skew", self.skew.distances, kinds)
        if self.drift.action != "off":
            self._check_drift(kinds)
        check_space(self.tuning, self)
        if self.ranking.enabled:
            self._check_ranking()
        if self.tuning.enabled:
            self._check_tuning_metric()
        sliceable = [
            name
            for name, feature in spec.request_features.items()
            if feature.kind == "categorical" and not feature.is_multivalued
        ]
        what = "categorical query features or context without `separator`"
        for name in self.evaluation.slices:
            _check_known("evaluation.slices", what, name, sliceable)
        baselines = self.evaluation.baselines or ()
        for name in NEED_TIMES:
            if self.events.timestamp is None and name in baselines:
                raise ValueError(f"baseline `{name}` needs `events.timestamp`")
        if "content" in baselines and not categorical_features(spec):
            raise ValueError("baseline `content` needs a categorical feature of candidates")
        if not self.model.candidate_id_embedding and not spec.candidate_features:
            raise ValueError(
                "`model.candidate_id_embedding: false` needs `candidates.features`, or the "
                "candidate tower has no input"
            )
        return self

    def _check_filters(self) -> None:
        known = [n for n, f in self.candidates.features.items() if f.kind == "categorical"]
        taken = {self.events.query_id, self.events.candidate_id, *self.spec.request_features}
        for name in self.index.filters:
            _check_known("index.filters", "categorical candidate features", name, known)
            if ALLOW_PREFIX + name in taken:
                raise ValueError(
                    f"`index.filters: {name}` adds an input {ALLOW_PREFIX + name!r}, but a query "
                    "feature or an ID already has that name; rename it"
                )
        if self.batch.enabled and self.batch.k > self.index.k:
            raise ValueError(
                f"`batch.k` must be at most `index.k: {self.index.k}`, got {self.batch.k}"
            )
        for name in self.batch.filters:
            _check_known("batch.filters", "features in `index.filters`", name, self.index.filters)
        if len(set(self.index.filters)) < len(self.index.filters):
            raise ValueError("`index.filters` names a feature twice")

    def _check_return_fields(self) -> None:
        fields = self.serving.return_fields
        if fields and not self.candidates.file:
            raise ValueError(
                "`serving.return_fields` needs the file that holds them: set `candidates.file`, or "
                f"remove {', '.join(fields)}"
            )
        if len(set(fields)) < len(fields):
            raise ValueError("`serving.return_fields` names a column twice")
        vectors = [name for name, f in self.candidates.features.items() if f.kind == "vector"]
        if returned := set(fields) & set(vectors):
            raise ValueError(
                f"`serving.return_fields` must not have vectors, got {', '.join(sorted(returned))}"
            )

    def _check_drift(self, kinds: dict[str, str]) -> None:
        data = self.data
        if not span_kind(data.interactions):
            raise ValueError(
                "`drift` compares spans, and `events.files` has none: {SPAN}, or {YYYY}, {MM} "
                "and {DD}"
            )
        if data.queried:
            raise ValueError(f"`drift` reads files, and the {data.queried[0]} are a query")
        kinds = {**kinds, **{name: f.kind for name, f in self.spec.candidate_features.items()}}
        if self.events.rating is not None:
            kinds[RATING_KEY] = "numeric"
        if self.events.event_type is not None:
            kinds[EVENT_TYPE_KEY] = "categorical"
        _check_distances("drift", self.drift.distances, kinds)

    def _check_ranking(self) -> None:
        searched = self.tuning.space.get("ranking.num_candidates", ())
        numbers = [searched.min] if isinstance(searched, RangeConfig) else [*searched]
        fewest = min([self.ranking.num_candidates, *numbers])
        if fewest < self.index.k:
            raise ValueError(
                f"`ranking.num_candidates` must be at least `index.k` ({self.index.k}), because "
                f"all returned candidates are ranked, but is {fewest:g}"
            )
        needs = {
            "`events.timestamp`": self.events.timestamp is not None,
            "`training.strategy` none or mirrored": self.training.strategy != "multi_worker",
            # A warm start may have seen the events that the first retriever must not see.
            "`ranking.refit_retriever` or `training.warm_start: false`": (
                self.ranking.refit_retriever or not self.training.warm_start
            ),
        }
        for name, task in self.ranking.tasks.items():
            column = "rating" if task.event_type is None else "event_type"
            if task.column is not None and task.column == self.events.rating:
                raise ValueError(
                    f"`ranking.tasks.{name}.column: {task.column}` must not be "
                    "`events.rating`, which is the default; remove it"
                )
            if task.column is None and getattr(self.events, column) is None:
                raise ValueError(
                    f"`ranking.tasks.{name}` with `loss: {task.loss}` needs `events.{column}`"
                    f"{' or a `column`' * (column == 'rating')}; set it, or remove the task"
                )
        missing = [need for need, is_met in needs.items() if not is_met]
        if missing:
            raise ValueError(
                "`ranking.enabled` needs a retriever that has not seen the events that the ranker "
                f"learns from: set {' and '.join(missing)}, or `ranking.enabled: false`"
            )

    def _check_tuning_metric(self) -> None:
        try:
            HoldoutMetric.parse(self.tuning_metric)
        except ValueError as error:
            raise ValueError(
                f"{error}: `evaluation.baseline_metric` cannot be measured during training; set "
                "`tuning.metric`"
            ) from error


def _check_known(setting: str, what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(
            f"`{setting}` must name {what}, got {name!r}{did_you_mean(name, known)} Known: "
            f"{', '.join(known) or 'none'}"
        )


def _check_distances(
    section: str, distances: Mapping[str, DistanceConfig], kinds: Mapping[str, str]
) -> None:
    for name, distance in distances.items():
        _check_known(f"{section}.distances", "features", name, list(kinds))
        if kinds[name] == "numeric" and distance.l_infinity is not None:
            raise ValueError(
                f"`{section}.distances.{name}` is numeric: give `jensen_shannon`, not `l_infinity`"
            )
        if kinds[name] in ("vector", "datetime"):
            raise ValueError(
                f"`{section}.distances.{name}` must not be a feature of kind {kinds[name]}, which "
                "has no distance"
            )
