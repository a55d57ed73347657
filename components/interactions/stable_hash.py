"""A 64-bit hash of strings that never changes: not with a library, a machine or a block size."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_WORD_BYTES = 8


def mix(values: Hashes) -> Hashes:
    """Scrambles each value.

    References:
        Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014: the
        finaliser of SplitMix64.
    """
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return cast(Hashes, z ^ (z >> np.uint64(31)))


def hash_strings(strings: Any, seed: int = 0) -> Hashes:
    """Returns the hash of each string's bytes, [n].

    Args:
        strings: A pyarrow array of strings, or of bytes, without nulls.
        seed: Different seeds give independent hashes.
    """
    count = len(strings)
    is_text = pa.types.is_string(strings.type) or pa.types.is_large_string(strings.type)
    strings = strings.cast(pa.large_string() if is_text else pa.large_binary())
    _, offset_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(offset_buffer or bytes(8), np.int64)[strings.offset :][: count + 1]
    starts, lengths = offsets[:-1], np.diff(offsets)
    data = np.frombuffer(data_buffer or b"", np.uint8)
    padded = np.concatenate([data, np.zeros(_WORD_BYTES, np.uint8)])
    # Each place of the data read as a little-endian word: an unaligned view, not a copy.
    words: Hashes = np.ndarray((len(data) + 1,), "<u8", padded.data, 0, (1,))
    hashes = mix(np.uint64(seed % 2**64) ^ mix(lengths.astype(np.uint64)))
    active = np.flatnonzero(lengths > 0)
    for done in range(0, int(lengths.max(initial=0)), _WORD_BYTES):
        active = active[lengths[active] > done]
        left = np.minimum(lengths[active] - done, _WORD_BYTES).astype(np.uint64)
        kept_bits = ~np.uint64(0) >> (np.uint64(64) - np.uint64(8) * left)
        hashes[active] = mix(hashes[active] ^ (words[starts[active] + done] & kept_bits))
    return hashes


def fraction(hashes: Hashes) -> npt.NDArray[np.float64]:
    """Returns each hash as a number in [0, 1)."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
