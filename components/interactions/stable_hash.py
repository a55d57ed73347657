"""A 64-bit hash of strings that is the same for every library version, machine and block size."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_WORD_BYTES = 8
# Do not merge until more IDs than this are waiting.
_LEAST_MERGED = 1 << 20


def mix(values: Hashes) -> Hashes:
    """Map each value to a pseudorandom one, without collisions.

    References:
        Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014: the
        finaliser of SplitMix64.
    """
    z = values + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return cast(Hashes, z ^ (z >> np.uint64(31)))


def hash_strings(strings: Any, seed: int = 0) -> Hashes:
    """Return the hash of each string's bytes [n]; the pyarrow array must not have nulls."""
    count = len(strings)
    is_text = pa.types.is_string(strings.type) or pa.types.is_large_string(strings.type)
    strings = strings.cast(pa.large_string() if is_text else pa.large_binary())
    _, offset_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(offset_buffer or bytes(8), np.int64)[strings.offset :][: count + 1]
    starts, lengths = offsets[:-1], np.diff(offsets)
    data = np.frombuffer(data_buffer or b"", np.uint8)
    padded = np.concatenate([data, np.zeros(_WORD_BYTES, np.uint8)])
    # words[i] is the little-endian 64-bit word that starts at byte i: an unaligned view, no copy.
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
    """Return each hash as a number in [0, 1)."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


class DistinctIds:
    """Counts of distinct IDs; memory is proportional to the number of distinct IDs."""

    def __init__(self) -> None:
        self._parts: list[tuple[Hashes, Counts]] = []
        self._num_merged = 0

    def add(self, ids: pa.Array) -> None:
        """Count the IDs in an array of strings without nulls."""
        counted = pc.value_counts(ids)
        hashes = hash_strings(counted.field("values"))
        self._parts.append((hashes, counted.field("counts").to_numpy()))
        waiting = sum(len(part) for part, _ in self._parts) - self._num_merged
        # Merge only when the number has doubled, so that each ID is merged only a few times.
        if waiting > max(self._num_merged, _LEAST_MERGED):
            self.merged()

    def merged(self) -> tuple[Hashes, Counts]:
        """Return the sorted hashes of the distinct IDs, and how often each occurred."""
        hashes = np.concatenate([np.array([], np.uint64), *(found for found, _ in self._parts)])
        counts = np.concatenate([np.array([], np.int64), *(found for _, found in self._parts)])
        distinct, positions = np.unique(hashes, return_inverse=True)
        summed = np.zeros(len(distinct), np.int64)
        np.add.at(summed, positions, counts)
        self._parts, self._num_merged = [(distinct, summed)], len(distinct)
        return distinct, summed
