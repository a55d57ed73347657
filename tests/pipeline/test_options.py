import pytest
import typer

from pipeline.cli.options import parse_filters, split_ids


@pytest.mark.parametrize(
    ("texts", "ids"),
    [
        (None, []),
        (["a,b , c"], ["a", "b", "c"]),
        (["a", "b,c"], ["a", "b", "c"]),
        (['"a,b",c'], ["a,b", "c"]),
        (['" a ","say ""hi"""'], [" a ", 'say "hi"']),
        (["", ",", "a,"], ["a"]),
        (["ü→漢, é 7"], ["ü→漢", "é 7"]),
    ],
)
def test_ids_stand_between_commas_or_in_quotes(texts: list[str] | None, ids: list[str]) -> None:
    assert split_ids(texts) == ids


def test_filters_gather_the_values_of_a_feature() -> None:
    given = ["genres=Film-Noir", "genres=Sci-Fi, or so", "country==x"]
    assert parse_filters(given) == {
        "genres": ["Film-Noir", "Sci-Fi, or so"],
        "country": ["=x"],
    }


@pytest.mark.parametrize("text", ["genres", "=x", "genres=", ""])
def test_a_filter_without_feature_or_value_ends_the_command(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        parse_filters([text])
