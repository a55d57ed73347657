"""Files of base64 lines inside the graph: from bytes to their line and back."""

import tensorflow as tf


class LineIndex(tf.Module):
    """Finds the line of a value.

    Args:
        path: A file of base64 lines (`components.index_builder.catalogue_files`).
        missing: What a value that no line holds has for its line.
    """

    def __init__(self, path: str, missing: int) -> None:
        super().__init__()
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                path,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            default_value=missing,
        )

    def lookup(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the lines of `values`, int32 of the same shape."""
        return tf.cast(self._table.lookup(tf.io.encode_base64(values)), tf.int32)


def read_lines(path: str) -> tf.Tensor:
    """Returns the values of a file of base64 lines, `[num_lines]`.

    In TensorFlow's own strings from end to end: as Python objects ten million take a gigabyte.
    """
    lines = tf.strings.split(tf.io.read_file(path), "\n")
    return tf.io.decode_base64(lines[:-1])
