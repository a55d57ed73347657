import io

from components.interactions.sources.csv import LineLocator, csv_records


def test_records_start_after_quoted_newlines_and_blank_lines():
    content = b'a,b\r\n1,2\r\n\r\n"x\r\ny\r\n",3\r\n\r\n\r\n4,5\r\n'
    records = list(csv_records(io.BytesIO(content), ","))
    assert [line for line, _ in records] == [1, 2, 4, 9]


def test_byte_order_mark_is_no_part_of_the_header():
    content = b"\xef\xbb\xbfa;b\n1;2\n"
    assert next(csv_records(io.BytesIO(content), ";")) == (1, ["a", "b"])


def test_locator_survives_broken_utf8_and_nul():
    locator = LineLocator(io.BytesIO(b"a\n\xff\n\0\n\n3\n"), ",")
    assert [locator.line_of(row) for row in (0, 1, 2)] == [2, 3, 5]
