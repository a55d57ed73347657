"""Synthetic logs of a news site and of a shop, for `drafts.py`.

Most of what is chosen on the news site is younger than a week, so most events that are held out are
of articles without training events. The shop's products come and go: a product that is gone is no
longer in the catalogue, or has a time of its delisting.
"""

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

START = 1_700_000_000
DAY_S = 86_400
_WORDS_PER_TOPIC, _TITLE_WORDS = 40, 5
# How much less users like what is not in one of their sections or categories.
_OTHER = 0.08


def write_news(folder: Path, seed: int = 5) -> None:
    """Write 40,000 clicks of 3,000 readers within 60 days, with 25 new articles a day.

    The interest in an article falls with its age in days as (1 + age)^-1.5.
    """
    rng = np.random.default_rng(seed)
    num_events, num_users, num_sections, days, archive_days = 40_000, 3_000, 12, 60, 30
    published = np.sort(rng.integers(-archive_days * DAY_S, days * DAY_S, 25 * (days + 30)))
    number = len(published)
    section = rng.integers(0, num_sections, number)
    appeal = rng.lognormal(0.0, 0.7, number)
    likes = _likes(rng, num_users, num_sections)
    users = rng.integers(0, num_users, num_events)
    times = np.sort(rng.integers(0, days * DAY_S, num_events))
    items = np.empty(num_events, np.int64)
    for event, (user, time) in enumerate(zip(users.tolist(), times.tolist(), strict=True)):
        first, last = np.searchsorted(published, [time - archive_days * DAY_S, time])
        age = (time - published[first:last]) / DAY_S
        weights = appeal[first:last] * (1.0 + age) ** -1.5 * likes[user, section[first:last]]
        items[event] = first + _draw(rng, weights)
    _write_events(folder, users, items, times)
    catalogue = pl.DataFrame(
        {
            "item_id": [f"item{item}" for item in range(number)],
            "section": [f"section {name}" for name in section.tolist()],
            "published": START + published,
        }
    )
    _write(catalogue, folder / "items.csv.gz")


def write_shop(folder: Path, seed: int = 5) -> None:
    """Write 40,000 purchases of 3,000 customers within 120 days, of products that come and go.

    Half of the products that are gone are not in the catalogue.
    """
    rng = np.random.default_rng(seed)
    num_events, num_users, num_categories, days = 40_000, 3_000, 20, 120
    number = 1_500
    listed = rng.integers(-days * DAY_S, days * DAY_S, number)
    delisted = listed + (rng.exponential(90, number) * DAY_S).astype(np.int64)
    category, brand = rng.integers(0, num_categories, number), rng.integers(0, 60, number)
    price = np.round(np.exp(rng.normal(3.0, 0.8, number)), 2)
    likes = _likes(rng, num_users, num_categories)
    budget = rng.normal(3.0, 0.8, num_users)
    appeal = 1.0 / rng.permutation(np.arange(1.0, number + 1)) ** 0.6
    users = rng.integers(0, num_users, num_events)
    times = np.sort(rng.integers(0, days * DAY_S, num_events))
    items = np.empty(num_events, np.int64)
    for event, (user, time) in enumerate(zip(users.tolist(), times.tolist(), strict=True)):
        available = np.flatnonzero((listed <= time) & (time < delisted))
        of_price = np.exp(-np.abs(np.log(price[available]) - budget[user]))
        weights = appeal[available] * likes[user, category[available]] * of_price
        items[event] = available[_draw(rng, weights)]
    _write_events(folder, users, items, times)
    is_gone = delisted < days * DAY_S
    catalogue = pl.DataFrame(
        {
            "item_id": [f"item{item}" for item in range(number)],
            "category": [f"category {name}" for name in category.tolist()],
            "brand": [f"brand {name}" for name in brand.tolist()],
            "price": price,
            "listed_at": START + listed,
            "delisted_at": np.where(is_gone, START + delisted, -1),
        }
    ).with_columns(pl.col("delisted_at").replace(-1, None))
    is_listed = ~is_gone | (rng.random(number) < 0.5)
    _write(catalogue.filter(is_listed), folder / "items.csv.gz")


def add_products(catalogue: Path, number: int) -> None:
    """Add products with the categories, brands and prices of others, which were listed last."""
    table = pl.read_csv(catalogue)
    rng = np.random.default_rng(1)
    columns = {
        name: table[name].gather(rng.integers(0, len(table), number))
        for name in ("category", "brand", "price")
    }
    new = pl.DataFrame(columns).with_columns(
        pl.Series("item_id", [f"new{item}" for item in range(number)]),
        pl.lit(table["listed_at"].max()).alias("listed_at"),
        pl.lit(None).alias("delisted_at"),
    )
    _write(pl.concat([table, new.select(table.columns).cast(dict(table.schema))]), catalogue)


def _likes(rng: np.random.Generator, num_users: int, number: int) -> Floats:
    """Return how much users like sections or categories, of which each has two favourites."""
    likes = np.full((num_users, number), _OTHER)
    favourites = rng.random((num_users, number)).argsort(axis=1)[:, :2]
    np.put_along_axis(likes, favourites, 1.0, axis=1)
    return likes


def _draw(rng: np.random.Generator, weights: Floats) -> int:
    total = np.cumsum(weights)
    return int(np.searchsorted(total, rng.random() * total[-1], side="right"))


def _write_events(folder: Path, users: Ints, items: Ints, times: Ints) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"user_id": users, "item_id": items, "timestamp": START + times}
    names = (pl.format("user{}", "user_id"), pl.format("item{}", "item_id"))
    _write(pl.DataFrame(columns).with_columns(*names), folder / "interactions.csv.gz")


def _write(table: pl.DataFrame, path: Path) -> None:
    with gzip.open(path, "wb", 1) as file:
        table.write_csv(file)
