"""Settings of the sections `model`, `training` and `tuning`.

This module must stay importable without TensorFlow: every command reads the configuration.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Discriminator, Field, Tag, model_validator

from models.settings import Settings

# Value of `training.early_stopping_metric` that selects the validation loss.
LOSS = "loss"

# A truncated SVD is a mean of the history and a dot product.
_SVD_NEEDS: Mapping[str, Any] = {
    "history_encoder": "mean",
    "similarity": "dot",
    "candidate_bias": None,
    "candidate_id_embedding": True,
    "query_id_embedding": False,
    "share_candidate_ids": False,
    "query_hidden_layers": (),
    "candidate_hidden_layers": (),
}


class ModelConfig(Settings):
    """Architecture of the two towers."""

    kind: Literal["towers", "svd"] = Field(
        "towers",
        description="towers: trained towers. svd: no training; candidates and histories are "
        "vectors of a truncated SVD of the events, without features.",
    )
    dimension: int = Field(64, ge=2, le=4096, description="Embedding dimension of both towers.")
    # On MovieLens 100K, the results were as good with histories alone.
    query_id_embedding: bool = Field(
        False, description="Learn an embedding for each known query ID, besides the history."
    )
    candidate_id_embedding: bool = Field(True, description="Learn an embedding per candidate ID.")
    history_encoder: Literal["none", "mean", "recency", "recency_attention"] = Field(
        "mean", description="Encoder that turns the history into a vector."
    )
    max_history: int = Field(
        512, ge=1, le=100_000, description="Number of newest events that the encoder reads."
    )
    share_candidate_ids: bool = Field(
        False, description="Use one ID embedding table for the candidate tower and the history."
    )
    history_features: bool = Field(
        True,
        description="Embed the events of the history by the features of their candidates too, not "
        "only by ID. `share_candidate_ids` then also shares the features' embeddings.",
    )
    recency_positions: int = Field(
        50,
        ge=1,
        le=1000,
        description="Number of newest events, and in recency_attention also of distances, that "
        "have their own weight.",
    )
    recency_heads: int = Field(4, ge=1, le=64, description="recency: number of weighted means.")
    attention_heads: int = Field(
        2, ge=1, le=64, description="recency_attention: number of attention heads."
    )
    attention_dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="recency_attention: share of the values that the attention and the dense layer "
        "add that is hidden in training.",
    )
    query_hidden_layers: tuple[int, ...] = Field(
        (), description="Widths of ReLU layers in the query tower, before a linear layer."
    )
    candidate_hidden_layers: tuple[int, ...] = Field(
        (), description="Widths of ReLU layers in the candidate tower, before a linear layer."
    )
    # Measured on the eval split of MovieLens 100K (random, batch size 32), hit_rate@10: .143 with
    # 1.0, .160 with .1, .164 with .02, .161 without query features. Adaptive optimizers change all
    # weights equally fast, so the few feature embeddings, which every batch uses, would dominate
    # the history. Lower values reduce the quality for new queries.
    query_feature_scale: float = Field(
        0.1, gt=0, le=10, description="Factor of the feature embeddings in the query tower."
    )
    similarity: Literal["dot", "cosine"] = Field(
        "dot", description="Similarity between a query and a candidate embedding."
    )
    # Measured on validation events of RetailRocket, recall@20: .505 with .07, .547 with .1, .542
    # with .15.
    temperature: float = Field(0.1, gt=0, le=10, description="cosine: divisor of the similarity.")
    # With cosine, a bias has raised hit_rate@10 of a log in which 1% of the candidates have 27% of
    # the events from .353 to .390; where they have 11%, mrr@20 has fallen from .301 to .279.
    candidate_bias: bool | None = Field(
        None,
        description="Learn a bias per candidate, which reflects its popularity. With "
        "next_candidate, it starts from the logarithm of its number of events. Default: with dot "
        "only.",
    )

    candidate_age: bool = Field(
        True,
        description="next_candidate, with `candidates.available_from`: learn the influence of a "
        "candidate's age on its score.",
    )

    @property
    def has_candidate_bias(self) -> bool:
        """Return True if candidates have a bias."""
        return self.similarity == "dot" if self.candidate_bias is None else self.candidate_bias

    @property
    def encodes_history(self) -> bool:
        """Return True if the query tower reads the history."""
        return self.history_encoder != "none"

    @model_validator(mode="after")
    def _options_are_consistent(self) -> "ModelConfig":
        if not self.encodes_history and not self.query_id_embedding:
            raise ValueError(
                "the query tower needs an input, but `history_encoder` is none and "
                "`query_id_embedding` is false; change one of them"
            )
        if self.history_encoder == "recency_attention" and self.dimension % self.attention_heads:
            raise ValueError(
                f"`dimension` {self.dimension} must be divisible by `attention_heads` "
                f"{self.attention_heads}"
            )
        wrong = {name: of for name, of in _SVD_NEEDS.items() if getattr(self, name) != of}
        if self.kind == "svd" and wrong:
            settings = ", ".join(f"`{name}: {json.dumps(of)}`" for name, of in wrong.items())
            raise ValueError(f"`kind: svd` needs the defaults of other settings: set {settings}")
        if self.share_candidate_ids and not self.candidate_id_embedding:
            raise ValueError("`share_candidate_ids` needs `candidate_id_embedding: true`")
        return self


class TrainingConfig(Settings):
    """Objective, loss, optimizer, early stopping and devices of a training run."""

    objective: Literal["reconstruct", "next_candidate"] = Field(
        "reconstruct",
        description="reconstruct: predict all events of a timeline from a random part of it, for "
        "data without order. next_candidate: predict each event from those before it.",
    )
    start: Literal["random", "svd"] = Field(
        "random",
        description="Initial embeddings of candidates. svd: vectors of a truncated SVD of the "
        "events, which suits `objective: reconstruct`.",
    )
    # Measured on MovieLens 100K (random split) on a validation fifth of the training events;
    # hit_rate@10 / @100 and CPU seconds of the training: .126 / .576 with these values. With
    # history_dropout .7: .127 / .572 (7.6 s), .120 / .569 (9.6 s) with 30 epochs at a constant
    # .006, .127 / .563 (5.8 s) with 12 epochs. If seen films are not excluded, hit_rate@10 is .052
    # with history_dropout .5 and .057 with .7.
    epochs: int = Field(20, ge=1, description="Number of passes over the timelines.")
    batch_size: int = Field(64, ge=1, description="Timelines per training step.")
    optimizer: Literal["adamw", "adam", "adagrad", "sgd"] = Field(
        "adamw", description="Optimizer. sgd has a momentum of 0.9."
    )
    learning_rate: float = Field(0.015, gt=0, le=10, description="Peak learning rate.")
    dense_learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="adamw: peak learning rate of all weights that are not embedding tables. "
        "Default: `learning_rate`.",
    )
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="Learning rate after the warm-up; cosine falls to 0."
    )
    warmup_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises from 0."
    )
    weight_decay: float = Field(0.05, ge=0, le=100, description="adamw: decoupled weight decay.")
    gradient_clip_norm: float | None = Field(
        None, gt=0, description="Largest global norm of the gradients. Default: no clipping."
    )
    ema_momentum: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Momentum of an exponential moving average of the weights, such as 0.99, which "
        "replaces them at the end of each epoch. Default: no average.",
    )
    history_dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Share of the history's events hidden in training. reconstruct needs more "
        "than 0.",
    )
    shuffle_history: bool = Field(
        False, description="next_candidate: shuffle the events of a timeline in every epoch."
    )
    feature_dropout: float = Field(
        0.1, ge=0, lt=1, description="Probability of hiding a feature or an ID in training."
    )
    loss: Literal["auto", "full_softmax", "sampled_softmax"] = Field(
        "auto",
        description="auto: full_softmax up to `max_full_softmax` candidates and `max_full_logits` "
        "logits per step, else sampled_softmax.",
    )
    max_full_softmax: int = Field(
        50_000, ge=1, description="Largest catalogue for which `loss: auto` takes full_softmax."
    )
    max_full_logits: int = Field(
        30_000_000,
        ge=1,
        description="Largest number of logits per step for which `loss: auto` takes full_softmax. "
        "It is the number of candidates times that of timelines (reconstruct) or events "
        "(next_candidate) in the step.",
    )
    num_negatives: int = Field(
        1024,
        ge=1,
        description="sampled_softmax: number of uniform negatives per step, and maximum number of "
        "in-batch negatives. With reconstruct, one row of logits per timeline makes many cheap.",
    )
    hard_negatives: int = Field(
        0, ge=0, description="sampled_softmax: use only the best-scoring negatives. 0: use all."
    )
    validation_fraction: float | None = Field(
        None,
        ge=0,
        le=0.5,
        description="Share of the training timelines held out for early stopping; with "
        "next_candidate, training misses only their newest events. Default: 5%, but at most 500 "
        "timelines, and none if 5% are fewer than 100 or with several workers.",
    )
    early_stopping_metric: str | None = Field(
        None,
        description="Metric on the validation timelines that selects the best epoch: loss, "
        "hit_rate@K, mrr@K or ndcg@K. Default: the one most like `evaluation.baseline_metric`.",
    )
    early_stopping_patience: int = Field(
        3, ge=0, description="Epochs without improvement before training stops. 0: never stop."
    )
    strategy: Literal["none", "mirrored", "multi_worker"] = Field(
        "none",
        description="none: one device. mirrored: all devices of this machine. multi_worker: the "
        "cluster described by TF_CONFIG.",
    )
    warm_start: bool = Field(
        False, description="Start from the last blessed model of earlier data, if there is one."
    )
    checkpoint_every_s: float = Field(
        30.0, ge=0, description="Minimum seconds between checkpoints, which are saved after epochs."
    )
    seed: int = Field(42, ge=0, description="Seed of initial weights, shuffling and dropout.")

    @model_validator(mode="after")
    def _optimizer_has_two_rates(self) -> "TrainingConfig":
        if self.dense_learning_rate is not None and self.optimizer != "adamw":
            raise ValueError(
                f"`dense_learning_rate` needs `optimizer: adamw`, got {self.optimizer}; remove one"
            )
        return self

    @model_validator(mode="after")
    def _options_suit_reconstruct(self) -> "TrainingConfig":
        if self.objective == "reconstruct" and self.hard_negatives:
            raise ValueError(
                "`hard_negatives` needs `objective: next_candidate`, got reconstruct; remove one"
            )
        if self.objective == "reconstruct" and not self.history_dropout:
            raise ValueError(
                "`objective: reconstruct` needs a `history_dropout` above 0, got 0: the model "
                "would only learn to copy its input; set it, for example to 0.5"
            )
        return self

    @model_validator(mode="after")
    def _early_stopping_metric_is_known(self) -> "TrainingConfig":
        if self.early_stopping_metric not in (None, LOSS):
            HoldoutMetric.parse(self.early_stopping_metric)
        return self


class RangeConfig(Settings):
    """A range of numbers that includes both limits."""

    min: float = Field(description="Smallest value.")
    max: float = Field(description="Largest value.")
    scale: Literal["linear", "log"] = Field(
        "linear", description="log: as many trials between 1 and 10 as between 10 and 100."
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> "RangeConfig":
        if self.min >= self.max:
            raise ValueError(f"`min` {self.min:g} must be below `max` {self.max:g}")
        if self.scale == "log" and self.min <= 0:
            raise ValueError(f"`scale: log` needs a `min` above 0, got {self.min:g}")
        return self


Choices = Annotated[
    Annotated[tuple[Any, ...], Tag("values")] | Annotated[RangeConfig, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | RangeConfig) else "values"),
]


class TuningConfig(Settings):
    """Search space, algorithm and metric of the hyperparameter search."""

    enabled: bool = Field(
        False, description="Search before training; the best values replace the configured ones."
    )
    space: Mapping[str, Choices] = Field(
        default_factory=dict,
        description="Values by setting, such as model.dimension: a list, or a mapping with min, "
        "max and optionally `scale: log`. The values of `recipe` are sets of settings, such as "
        "[{}, {model.kind: svd, model.dimension: 512}]; {} changes nothing.",
    )
    algorithm: Literal["random", "bayesian", "hyperband"] = Field(
        "random",
        description="bayesian: a Gaussian process chooses each trial. hyperband: many short "
        "trials, the better ones repeated with three times the epochs.",
    )
    max_trials: int = Field(20, ge=1, le=10_000, description="Maximum number of trials.")
    max_seconds: float | None = Field(
        None, gt=0, description="No trial starts after this time. Default: no limit."
    )
    metric: str | None = Field(
        None,
        description="hit_rate@K, mrr@K or ndcg@K on held-out training timelines or, in a search of "
        "the ranker, events. Default: `evaluation.baseline_metric`.",
    )
    holdout_fraction: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="Share of the training timelines to measure trials on or, in a search of the "
        "ranker, of the events that are held back from the retriever.",
    )
    seed: int = Field(42, ge=0, description="Seed of the choice of trials.")

    @model_validator(mode="after")
    def _is_complete(self) -> "TuningConfig":
        if self.enabled and not self.space:
            raise ValueError(
                "`tuning.enabled` needs a `tuning.space`, for example `{model.dimension: [32, 64]}`"
            )
        for name, choices in self.space.items():
            if not isinstance(choices, RangeConfig) and len(choices) < 2:
                raise ValueError(
                    f"`tuning.space.{name}` must list at least two values, got {list(choices)}; "
                    "set a fixed value in its own section"
                )
        if self.metric is not None:
            HoldoutMetric.parse(self.metric)
        return self


class HoldoutMetric(NamedTuple):
    """A metric@k that training and tuning compute on held-out training timelines."""

    kind: str
    k: int

    @classmethod
    def parse(cls, name: str) -> "HoldoutMetric":
        """Parse the name of a metric, such as ndcg@10.

        Raises:
            ValueError: The name is not one of hit_rate@K, mrr@K and ndcg@K.
        """
        match = re.fullmatch(r"(hit_rate|mrr|ndcg)@([1-9][0-9]*)", name)
        if match is None:
            raise ValueError(f"the metric must be hit_rate@K, mrr@K or ndcg@K, got {name!r}")
        return cls(match[1], int(match[2]))

    def mean(self, ranks: npt.NDArray[np.int64]) -> float:
        """Return the mean over `ranks` `[num_events]`, which start at 1; 0 if there are none."""
        if len(ranks) == 0:
            return 0.0
        gain = {"hit_rate": 1.0, "mrr": 1.0 / ranks, "ndcg": 1.0 / np.log2(1.0 + ranks)}
        return float(((ranks <= self.k) * gain[self.kind]).mean())
