"""Losses: full and sampled softmax over the catalogue, and the sampling of negatives."""

from collections.abc import Callable, Sequence

import tensorflow as tf

_MASKED = -1e9
# Maximum number of logits in memory at a time: 8 million float32 take 32 MB.
_LOGITS_PER_BLOCK = 8_000_000


def full_softmax(
    logits: tf.Tensor, rows: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Return the weighted mean of -log softmax(logits)[row, target].

    Use it for few queries with many targets each; `sampled_softmax` needs one query per target.
    `logits` is `[batch, num_candidates]`; `rows`, `targets` and `weights` are `[num_events]`.
    """
    chosen = tf.gather_nd(logits, tf.stack([rows, targets], axis=1))
    normaliser = tf.gather(tf.reduce_logsumexp(logits, axis=1), rows)
    return tf.math.divide_no_nan(
        tf.reduce_sum(weights * (normaliser - chosen)), tf.reduce_sum(weights)
    )


def without_unavailable(
    logits: tf.Tensor, is_available: tf.Tensor, rows: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """Return logits `[batch, n]` without candidates that are not available, as a mask says.

    Targets are kept, also those that the catalogue says were not available. `rows` and `targets`
    are those of `full_softmax`.
    """
    own = tf.stack([rows, targets], axis=1)
    kept = tf.tensor_scatter_nd_update(is_available, own, tf.ones_like(rows, tf.bool))
    return tf.where(kept, logits, _MASKED)


def rows_candidates(
    targets: tf.Tensor, negatives: tf.Tensor, negative_log_expected: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the candidates that `sampled_rows_softmax` needs logits of.

    Args:
        targets: Candidate indices, `[num_events]` int32.
        negatives: Candidate indices, `[num_negatives]` int32.
        negative_log_expected: Log of the expected count of each negative, `[num_negatives]`.

    Returns:
        The distinct candidate indices `[n]`, the position of each target in them `[num_events]`,
        and the log weight of each candidate as a negative `[n]`.
    """
    candidates, positions = tf.unique(tf.concat([targets, negatives], axis=0))
    own, drawn = tf.split(positions, [tf.size(targets), tf.size(negatives)])
    weights = tf.math.unsorted_segment_sum(
        tf.exp(-negative_log_expected), drawn, tf.size(candidates)
    )
    return candidates, own, tf.where(weights > 0, tf.math.log(weights), _MASKED)


def sampled_rows_softmax(
    logits: tf.Tensor,
    rows: tf.Tensor,
    targets: tf.Tensor,
    log_weights: tf.Tensor,
    weights: tf.Tensor,
) -> tf.Tensor:
    """Return the weighted mean softmax loss of few queries with many targets each.

    All targets of a row share its normaliser. The row's own targets are exact terms of it, and the
    other candidates are negatives with the weights of `rows_candidates`, so the normaliser is an
    unbiased estimate of the full one. `logits` is `[batch, n]`; `rows`, `targets` (columns of
    `logits`) and `weights` are `[num_events]`.
    """
    own = tf.stack([rows, targets], axis=1)
    correction = tf.broadcast_to(log_weights, tf.shape(logits))
    correction = tf.tensor_scatter_nd_update(correction, own, tf.zeros_like(weights))
    return full_softmax(logits + correction, rows, targets, weights)


def sampled_softmax(
    queries: tf.Tensor,
    target_vectors: tf.Tensor,
    negative_vectors: tf.Tensor,
    targets: tf.Tensor,
    negatives: tf.Tensor,
    negative_log_expected: tf.Tensor,
    weights: tf.Tensor,
    hardest: int = 0,
    is_available: Callable[[slice], tf.Tensor] | None = None,
) -> tf.Tensor:
    """Return the mean softmax loss against shared negatives, corrected for their sampling.

    The logit of each negative is reduced by the logarithm of its expected count among the negatives
    (logQ correction), which makes the sampled normaliser an unbiased estimate of the full one.
    Negatives equal to the event's own target (accidental hits), and those that were not available,
    are ignored. With the whole catalogue as negatives and a correction of 0, the result is the full
    softmax.

    Logits and their gradients are computed for a block of events at a time, so that memory does not
    grow with the number of events.

    Args:
        queries: `[num_events, dimension]`.
        target_vectors: Embeddings of the targets, `[num_events, dimension]`.
        negative_vectors: `[num_negatives, dimension]`.
        targets: Candidate indices, `[num_events]` int32.
        negatives: Candidate indices, `[num_negatives]` int32.
        negative_log_expected: Log of the expected count of each negative, `[num_negatives]`.
        weights: `[num_events]`.
        hardest: Number of negatives with the highest scores to keep per event; 0 keeps all. Their
            corrections stay the same. The loss changes without the easy negatives, but its gradient
            changes very little.
        is_available: Function that returns which negatives could have been chosen in some of the
            events `[n, num_negatives]`. By default, all could.

    References:
        Bengio, Senécal. Adaptive Importance Sampling to Accelerate Training of a Neural
        Probabilistic Language Model. 2008. Eq. 12.
        Yi et al. Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations.
        RecSys 2019. Eq. 3.
    """

    @tf.custom_gradient
    def total(
        queries: tf.Tensor, target_vectors: tf.Tensor, negative_vectors: tf.Tensor
    ) -> tuple[tf.Tensor, object]:
        positive = tf.reduce_sum(queries * target_vectors, axis=1)
        num_events = tf.shape(queries)[0]
        block = tf.maximum(1, _LOGITS_PER_BLOCK // tf.maximum(tf.shape(negatives)[0], 1))
        blocks = tf.maximum(1, -(-num_events // block))
        transposed = tf.transpose(negative_vectors)

        def one(
            number: tf.Tensor, parts: tuple[tf.TensorArray, ...], negative_gradients: tf.Tensor
        ) -> tuple[tf.Tensor, tuple[tf.TensorArray, ...], tf.Tensor]:
            events = slice(number * block, (number + 1) * block)
            query, own, weight = queries[events], positive[events], weights[events]
            scores = tf.matmul(query, transposed)
            hits = targets[events][:, None] == negatives[None, :]
            if is_available is not None:
                hits |= ~is_available(events)
            logits = tf.where(hits, _MASKED, scores - negative_log_expected[None, :])
            if hardest:
                scores = tf.where(hits, _MASKED, scores)
                kept = tf.minimum(hardest, tf.shape(scores)[1])
                threshold = tf.math.top_k(scores, kept).values[:, -1:]
                logits = tf.where(scores < threshold, _MASKED, logits)
            highest = tf.maximum(own, tf.reduce_max(logits, axis=1))
            exponentials = tf.exp(logits - highest[:, None])
            own_exponential = tf.exp(own - highest)
            sums = tf.reduce_sum(exponentials, axis=1) + own_exponential
            losses = weight * (tf.math.log(sums) + highest - own)
            shares = exponentials * (weight / sums)[:, None]
            positive_slopes = weight * (own_exponential / sums - 1.0)
            results = (losses, positive_slopes, tf.matmul(shares, negative_vectors))
            written = tuple(
                part.write(number, values) for part, values in zip(parts, results, strict=True)
            )
            # Transposing the small result is twice as fast on a CPU as transposing the shares.
            by_negatives = tf.transpose(tf.matmul(query, shares, transpose_a=True))
            return number + 1, written, negative_gradients + by_negatives

        def empty(*shape: int | None) -> tf.TensorArray:
            return tf.TensorArray(
                tf.float32, blocks, infer_shape=False, element_shape=[None, *shape]
            )

        _, parts, negative_gradients = tf.while_loop(
            lambda number, *_: number < blocks,
            one,
            (
                tf.constant(0),
                (empty(), empty(), empty(queries.shape[1])),
                tf.zeros_like(negative_vectors),
            ),
            parallel_iterations=1,
        )
        losses, positive_slopes, query_gradients = (part.concat() for part in parts)

        def gradients(upstream: tf.Tensor) -> Sequence[tf.Tensor]:
            own = positive_slopes[:, None]
            return (
                upstream * (query_gradients + own * target_vectors),
                upstream * (own * queries),
                upstream * negative_gradients,
            )

        return tf.reduce_sum(losses), gradients

    summed = total(queries, target_vectors, negative_vectors)
    return tf.math.divide_no_nan(summed, tf.reduce_sum(weights))


def draw_negatives(
    targets: tf.Tensor,
    warm: tf.Tensor,
    log_frequency: tf.Tensor,
    num_per_source: int,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw the shared negatives of one step: in-batch targets and uniformly drawn candidates.

    The two sources form one mixture, so the expected count of a candidate does not depend on the
    source that it came from. It is `in_batch * frequency + num_per_source / num_warm`. The number
    of in-batch negatives is limited, because otherwise the number of logits would grow with the
    square of the batch's events.

    Args:
        targets: Candidate indices of the batch, `[num_events]` int32.
        warm: Indices of the candidates that have training events, `[num_warm]` int32.
        log_frequency: Log of each candidate's share of the training events, `[num_candidates]`.
        num_per_source: Number of candidates to draw uniformly, and maximum number of `targets` to
            take in random order.
        seed: `[2]` int32.

    Returns:
        Candidate indices, int32, and logarithms of their expected counts, both `[num_negatives]`.
    """
    num_warm = tf.shape(warm)[0]
    uniform = tf.random.stateless_uniform([num_per_source], seed, maxval=num_warm, dtype=tf.int32)
    order = tf.argsort(tf.random.stateless_uniform(tf.shape(targets), seed + 1))
    in_batch = tf.gather(targets, order[:num_per_source])
    negatives = tf.concat([in_batch, tf.gather(warm, uniform)], axis=0)
    expected = tf.cast(tf.size(in_batch), tf.float32) * tf.exp(tf.gather(log_frequency, negatives))
    expected += num_per_source / tf.cast(num_warm, tf.float32)
    return negatives, tf.math.log(expected)
