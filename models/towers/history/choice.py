"""The history encoder that a configuration names."""

from models.towers.history.encoder import HistoryEncoder
from models.towers.history.gru_encoder import GruEncoder
from models.towers.history.mean_encoder import MeanEncoder
from models.towers.history.recency_encoder import RecencyEncoder
from models.towers.history.self_attention_encoder import SelfAttentionEncoder
from models.training.config import ModelConfig

_ENCODERS: dict[str, type[HistoryEncoder]] = {
    "none": MeanEncoder,  # never asked
    "mean": MeanEncoder,
    "recency": RecencyEncoder,
    "gru": GruEncoder,
    "self_attention": SelfAttentionEncoder,
}


def make_history_encoder(config: ModelConfig) -> HistoryEncoder:
    """Returns the encoder; for `none` one that is never asked."""
    dimension = config.dimension
    if config.history_encoder == "recency":
        return RecencyEncoder(dimension, config.recency_positions, config.recency_heads)
    if config.history_encoder == "gru":
        return GruEncoder(dimension)
    if config.history_encoder == "self_attention":
        return SelfAttentionEncoder(
            dimension, config.attention_layers, config.attention_heads, config.recency_positions
        )
    return MeanEncoder(dimension)


def encoder_pads(config: ModelConfig) -> bool:
    """Whether the encoder trains on padded timelines, and so wants them alike in length."""
    return _ENCODERS[config.history_encoder].pads
