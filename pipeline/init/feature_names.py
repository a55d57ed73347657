"""Names that Examples and served signatures accept, one for each column."""

import re

from models.features.spec import RESERVED_KEYS

SAFE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def safe_feature_name(column: str, side: str, taken: set[str]) -> str:
    """Returns a name for a column's feature that no other has.

    Args:
        column: In the file.
        side: `query` or `candidate`; put in front where the plain name will not do.
        taken: Ids and the features named so far.
    """
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", column).strip("_")
    if not plain:
        plain = "feature"
    if not plain[0].isalpha():
        plain = f"{side}_{plain}"
    name = plain
    if name in RESERVED_KEYS or name in taken:
        name = f"{side}_{plain}"
    number = 2
    while name in RESERVED_KEYS or name in taken:
        name = f"{side}_{plain}_{number}"
        number += 1
    return name
