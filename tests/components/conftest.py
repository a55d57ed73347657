"""Fixtures for tests of several components."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.components.interactions.object_store import ObjectStore


@pytest.fixture
def object_store() -> Iterator[str]:
    """Return the URI of a folder in an empty object store."""
    ObjectStore.objects.clear()
    yield "obj://bucket/root"
    ObjectStore.objects.clear()
