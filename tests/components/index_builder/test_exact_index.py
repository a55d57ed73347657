"""Traps of TensorFlow's variables that the exact index must not fall into."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from components.index_builder.exact_index import ExactIndex


def test_asking_for_vectors_does_not_make_every_later_search_copy_them():
    # ResourceGather switches the variable to copy on read, for good.
    index = ExactIndex(np.zeros([4, 2], np.float32))
    traced = tf.function(index.vectors_at).get_concrete_function(tf.TensorSpec([None], tf.int32))
    assert "ResourceGather" not in {op.type for op in traced.graph.get_operations()}
