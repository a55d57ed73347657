"""The file in a dataset's folder that says what the others are: with it the folder is whole."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Written last inside the folder.
MANIFEST = "dataset.json"


@dataclass(frozen=True)
class Prepared:
    """What preparing a dataset did.

    Attributes:
        folder: where the CSV files are.
        counts: what there is how often; None where the folder was there already and nothing was
            done.
    """

    folder: Path
    counts: Mapping[str, int] | None


def write_manifest(
    folder: Path, name: str, source: str, counts: Mapping[str, int], files: Sequence[str]
) -> None:
    """Write what the files of `folder` are, where they came from and how long they are."""
    manifest = {
        "name": name,
        "source": source,
        "counts": dict(counts),
        "bytes": {file_name: (folder / file_name).stat().st_size for file_name in files},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def is_complete(folder: Path) -> bool:
    """Say whether `folder` holds every file that its manifest names, each as long as it says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes: dict[str, int] = manifest["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def in_words(counts: Mapping[str, int]) -> str:
    """Return counts as "1,682 movies, 943 users"."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
