"""Softmax losses over the catalogue, full and sampled."""

from collections.abc import Sequence

import tensorflow as tf

_MASKED = -1e9
# Logits in memory at once: 8 million float32 are 32 MB.
_LOGITS_A_BLOCK = 8_000_000


def full_softmax(
    logits: tf.Tensor, rows: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Returns the weighted mean of -log softmax(logits)[row, target].

    For few queries with many targets each; `sampled_softmax` is for a query each.

    Args:
        logits: `[batch, num_candidates]`.
        rows: `[num_events]` int32, the row of each event.
        targets: `[num_events]` int32, its candidate.
        weights: `[num_events]` float32.
    """
    chosen = tf.gather_nd(logits, tf.stack([rows, targets], axis=1))
    normaliser = tf.gather(tf.reduce_logsumexp(logits, axis=1), rows)
    return tf.math.divide_no_nan(
        tf.reduce_sum(weights * (normaliser - chosen)), tf.reduce_sum(weights)
    )


def sampled_softmax(
    queries: tf.Tensor,
    target_vectors: tf.Tensor,
    negative_vectors: tf.Tensor,
    targets: tf.Tensor,
    negatives: tf.Tensor,
    negative_log_expected: tf.Tensor,
    weights: tf.Tensor,
    hardest: int = 0,
) -> tf.Tensor:
    """Returns the softmax loss against shared negatives, corrected for how they were drawn.

    Each negative's logit is lowered by the logarithm of how often it is expected among the
    negatives (logQ), which makes the sampled normaliser an unbiased estimate of the full one.
    Negatives that are the event's own target (accidental hits) do not count. With the whole
    catalogue as negatives and a correction of 0 it is the full softmax.

    Logits are made a block of events at a time, and with them their gradient, so that memory does
    not grow with the number of events.

    Args:
        queries: `[num_events, dimension]`.
        target_vectors: `[num_events, dimension]`, of each event's candidate.
        negative_vectors: `[num_negatives, dimension]`.
        targets: `[num_events]` int32 indices.
        negatives: `[num_negatives]` int32 indices.
        negative_log_expected: `[num_negatives]`, log of the expected number of times that this
            candidate is drawn.
        weights: `[num_events]`.
        hardest: Keep for each event only this many negatives, those of the highest scores; 0: all.
            They keep their corrections: the normaliser is then the part of the full one that is
            owed to hard candidates, each counted for as many as it stands for. Left out is the
            mass of the easy rest, which moves the value of the loss but hardly its gradient.

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
        losses, pulls, query_gradients, negative_gradients = _blocks(
            queries,
            tf.reduce_sum(queries * target_vectors, axis=1),
            negative_vectors,
            targets,
            negatives,
            negative_log_expected,
            weights,
            hardest,
        )

        def gradients(upstream: tf.Tensor) -> Sequence[tf.Tensor]:
            own = pulls[:, None]
            return (
                upstream * (query_gradients + own * target_vectors),
                upstream * (own * queries),
                upstream * negative_gradients,
            )

        return tf.reduce_sum(losses), gradients

    summed = total(queries, target_vectors, negative_vectors)
    return tf.math.divide_no_nan(summed, tf.reduce_sum(weights))


def _blocks(
    queries: tf.Tensor,
    positive: tf.Tensor,
    negative_vectors: tf.Tensor,
    targets: tf.Tensor,
    negatives: tf.Tensor,
    negative_log_expected: tf.Tensor,
    weights: tf.Tensor,
    hardest: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes losses and gradients of the summed loss, a block of events at a time.

    Returns:
        `[num_events]` losses; `[num_events]` derivatives by the positive logit; gradients
        `[num_events, dimension]` through the negative logits by the query, and
        `[num_negatives, dimension]` by the negative vectors.
    """
    num_events = tf.shape(queries)[0]
    block = tf.maximum(1, _LOGITS_A_BLOCK // tf.maximum(tf.shape(negatives)[0], 1))
    blocks = tf.maximum(1, -(-num_events // block))
    across = tf.transpose(negative_vectors)

    def one(
        number: tf.Tensor,
        parts: tuple[tf.TensorArray, tf.TensorArray, tf.TensorArray],
        negative_gradients: tf.Tensor,
    ) -> tuple[tf.Tensor, tuple[tf.TensorArray, ...], tf.Tensor]:
        mine = slice(number * block, (number + 1) * block)
        query, own, weight = queries[mine], positive[mine], weights[mine]
        scores = tf.matmul(query, across)
        hits = targets[mine][:, None] == negatives[None, :]
        logits = tf.where(hits, _MASKED, scores - negative_log_expected[None, :])
        if hardest:
            scores = tf.where(hits, _MASKED, scores)
            kept = tf.minimum(hardest, tf.shape(scores)[1])
            least = tf.math.top_k(scores, kept).values[:, -1:]
            logits = tf.where(scores < least, _MASKED, logits)
        highest = tf.maximum(own, tf.reduce_max(logits, axis=1))
        exponentials = tf.exp(logits - highest[:, None])
        own_exponential = tf.exp(own - highest)
        sums = tf.reduce_sum(exponentials, axis=1) + own_exponential
        losses = weight * (tf.math.log(sums) + highest - own)
        shares = exponentials * (weight / sums)[:, None]
        pulls = weight * (own_exponential / sums - 1.0)
        results = (losses, pulls, tf.matmul(shares, negative_vectors))
        written = tuple(
            part.write(number, values) for part, values in zip(parts, results, strict=True)
        )
        # Transposing the small result is twice as fast on a CPU as transposing the shares.
        pushes = tf.transpose(tf.matmul(query, shares, transpose_a=True))
        return number + 1, written, negative_gradients + pushes

    def empty(*shape: int | None) -> tf.TensorArray:
        return tf.TensorArray(
            tf.float32,
            blocks,
            infer_shape=False,
            element_shape=[None, *shape],
            clear_after_read=True,
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
    losses, pulls, query_gradients = (part.concat() for part in parts)
    return losses, pulls, query_gradients, negative_gradients


def draw_negatives(
    targets: tf.Tensor,
    log_frequency: tf.Tensor,
    num_in_batch: int,
    num_uniform: int,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws one step's shared negatives: from the batch's own targets, and uniform ones.

    Both sources are one mixture: a candidate's expected count is `in_batch * frequency +
    num_uniform / num_candidates`, whichever source it came from. Taking every target of a batch
    of long timelines would make the logits quadratic in its events.

    Args:
        targets: `[num_events]` int32, of the batch.
        log_frequency: `[num_candidates]` float32, log share of the training events.
        num_in_batch: How many of `targets` to take at most, in a random order.
        num_uniform: How many more to draw with equal chances.
        seed: `[2]` int32.

    Returns:
        Indices `[num_negatives]` int32 and their log expected counts.
    """
    num_candidates = tf.shape(log_frequency)[0]
    uniform = tf.random.stateless_uniform(
        [num_uniform], seed, maxval=num_candidates, dtype=tf.int32
    )
    order = tf.argsort(tf.random.stateless_uniform(tf.shape(targets), seed + 1))
    in_batch = tf.gather(targets, order[:num_in_batch])
    negatives = tf.concat([in_batch, uniform], axis=0)
    expected = tf.cast(tf.size(in_batch), tf.float32) * tf.exp(tf.gather(log_frequency, negatives))
    expected += num_uniform / tf.cast(num_candidates, tf.float32)
    return negatives, tf.math.log(expected)
