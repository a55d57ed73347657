"""The Jinja environment of the pages, which escapes all text of the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2


def template(path: Path, **filters: Callable[..., Any]) -> jinja2.Template:
    """Return a template of a page that may use filters and include files of its folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= filters
    return environment.get_template(path.name)
