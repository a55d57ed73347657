"""Settings of the towers and of their training."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.settings import Settings
from models.training.holdout_metric import LOSS, HoldoutMetric


class ModelConfig(Settings):
    """The two towers."""

    dimension: int = Field(64, ge=2, le=4096, description="Width of both towers.")
    query_id_embedding: bool = Field(
        False,
        description="Learn a vector for each known query id. History alone was as good on "
        "MovieLens 100K and also answers for unknown ids.",
    )
    candidate_id_embedding: bool = Field(True, description="Learn a vector for each candidate id.")
    history_encoder: Literal["none", "mean", "recency", "gru", "self_attention"] = Field(
        "mean", description="How the events before the question become a vector."
    )
    max_history: int = Field(
        512, ge=1, le=100_000, description="Newest events of a timeline that the encoder sees."
    )
    share_candidate_ids: bool = Field(
        False,
        description="Look up the history in the candidates' own id vectors, instead of in a second "
        "table.",
    )
    recency_positions: int = Field(
        50,
        ge=1,
        le=1000,
        description="recency: how many of the newest events weigh in; self_attention: up to which "
        "distance two events are told apart.",
    )
    recency_heads: int = Field(4, ge=1, le=64, description="recency: weighted sums side by side.")
    attention_layers: int = Field(2, ge=1, le=12, description="self_attention: blocks.")
    attention_heads: int = Field(2, ge=1, le=64, description="self_attention: heads of a block.")
    query_hidden_layers: tuple[int, ...] = Field(
        (), description="Widths of dense ReLU layers before the query tower's last, linear one."
    )
    candidate_hidden_layers: tuple[int, ...] = Field(
        (), description="Widths of dense ReLU layers before the candidate tower's last, linear one."
    )
    query_feature_scale: float = Field(
        # Tried on the eval split of MovieLens 100K (random, 32 timelines a step), hit_rate@10: .143
        # with 1.0, .160 with .1, .164 with .02, .161 without query features. An adaptive optimiser
        # moves every weight alike, and a few feature vectors, seen in every batch, outrun the
        # history. Lower still costs new queries.
        0.1,
        gt=0,
        le=10,
        description="What the query's feature vectors are multiplied by, beside its history.",
    )
    similarity: Literal["dot", "cosine"] = Field("dot", description="How two vectors are compared.")
    temperature: float = Field(
        # RetailRocket's sessions, recall@20 on validation: .505 with .07, .547 with .1, .542 with
        # .15.
        0.1,
        gt=0,
        le=10,
        description="Cosine only: what the similarity is divided by.",
    )
    candidate_bias: bool = Field(
        True, description="Dot product only: a learned popularity term for each candidate."
    )

    @model_validator(mode="after")
    def _query_side_sees_something(self) -> "ModelConfig":
        if self.history_encoder == "none" and not self.query_id_embedding:
            raise ValueError(
                "`history_encoder: none` with `query_id_embedding: false` leaves the query tower "
                "without an input; set one of them"
            )
        return self

    @model_validator(mode="after")
    def _encoder_fits(self) -> "ModelConfig":
        if self.history_encoder == "self_attention" and self.dimension % self.attention_heads:
            raise ValueError(
                f"`dimension` {self.dimension} must be divisible by `attention_heads` "
                f"{self.attention_heads}"
            )
        if self.share_candidate_ids and not self.candidate_id_embedding:
            raise ValueError(
                "`share_candidate_ids` needs the table of `candidate_id_embedding: true`"
            )
        return self


class TrainingConfig(Settings):
    """How the towers are fitted."""

    objective: Literal["reconstruct", "next_candidate"] = Field(
        "reconstruct",
        description="reconstruct: all events of a timeline from a random part of it (order means "
        "nothing); next_candidate: each event from those before it.",
    )
    # Chosen on MovieLens 100K (random), on a fifth of the other four fifths of the events; there
    # hit_rate@10 / @100 and the CPU seconds of the fit were: .127 / .572 (7.6 s) with these;
    # .120 / .569 (9.6 s) with 30 epochs at a constant .006; .127 / .563 (5.8 s) with 12 epochs;
    # .126 / .576 with half of the history hidden, but .052 instead of .057 with seen films counted.
    epochs: int = Field(20, ge=1, description="Passes over the timelines.")
    batch_size: int = Field(64, ge=1, description="Timelines in a step.")
    optimizer: Literal["adamw", "adam", "adagrad", "sgd"] = Field(
        "adamw", description="Keras' own; sgd has a momentum of 0.9."
    )
    learning_rate: float = Field(0.015, gt=0, le=10, description="Highest of the schedule.")
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="How the learning rate moves; cosine: down to 0 at the last step."
    )
    warmup_fraction: float = Field(
        0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises from 0."
    )
    weight_decay: float = Field(0.05, ge=0, le=100, description="adamw only, decoupled.")
    gradient_clip_norm: float | None = Field(
        None, gt=0, description="Largest norm of all gradients together; absent: not clipped."
    )
    history_dropout: float = Field(
        0.7, ge=0, lt=1, description="Share of the history hidden in training."
    )
    shuffle_history: bool = Field(
        False,
        description="next_candidate: put the events of a timeline into a new order in each epoch, "
        "for data whose order means nothing.",
    )
    feature_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Chance that a feature, or an id vector, is hidden in training.",
    )
    event_weights: Mapping[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="How much an event counts in the loss, by its `event_type` or else by its "
        "rating, for example {purchase: 5, view: 1} or {1: 0.1, 5: 1}.",
    )
    loss: Literal["auto", "full_softmax", "sampled_softmax"] = Field(
        "auto",
        description="auto: full up to `max_full_softmax` candidates and `max_full_logits` logits "
        "in a step, else sampled.",
    )
    max_full_softmax: int = Field(20_000, ge=1, description="Largest catalogue for `auto` = full.")
    max_full_logits: int = Field(
        30_000_000,
        ge=1,
        description="Most logits for `auto` = full: candidates times the timelines of a step "
        "(reconstruct) or times their events (next_candidate).",
    )
    num_negatives: int = Field(
        1024,
        ge=1,
        description="Sampled softmax: uniform negatives in a step, and as many from the batch.",
    )
    hard_negatives: int = Field(
        0,
        ge=0,
        description="Sampled softmax: learn each event from this many of the negatives only, those "
        "of the highest scores; 0: from all.",
    )
    validation_fraction: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of the training timelines kept out of fitting, to be watched.",
    )
    early_stopping_metric: str | None = Field(
        None,
        description="What is watched, and which epoch's weights are kept at the end: loss, or "
        "hit_rate@K, mrr@K or ndcg@K over the kept-out timelines' events; "
        "`evaluation.baseline_metric` if absent.",
    )
    early_stopping_patience: int = Field(
        0, ge=0, description="Epochs without a better value before stopping; 0: never."
    )
    strategy: Literal["none", "mirrored", "multi_worker"] = Field(
        "none",
        description="none: one device; mirrored: all of this machine, each with a part of the "
        "batch; multi_worker: those of the cluster in TF_CONFIG.",
    )
    warm_start: bool = Field(
        False,
        description="Begin with the weights of the last blessed model of earlier data, where there "
        "is one; new ids begin anew.",
    )
    checkpoint_every_s: float = Field(
        30.0, ge=0, description="Least seconds between checkpoints, taken where an epoch ends."
    )
    seed: int = Field(42, ge=0, description="Of weights, order and dropout.")

    @model_validator(mode="after")
    def _early_stopping_has_something_to_watch(self) -> "TrainingConfig":
        if self.early_stopping_patience and not self.validation_fraction:
            raise ValueError(
                "`early_stopping_patience` watches timelines that are not fitted on: set "
                "`validation_fraction` too, for example 0.05"
            )
        if self.early_stopping_metric not in (None, LOSS):
            HoldoutMetric.parse(self.early_stopping_metric)
        return self
