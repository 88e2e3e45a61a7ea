"""The importer: what every line means, and that a bad line costs itself only."""

from __future__ import annotations

import csv
import gzip
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retail import HEADER, ROOT, tally, truth

from shop.trial.orders_file import OrdersFile, OrdersFileError

RETAIL = Path(os.environ.get("EVENTMILL_RETAIL") or ROOT.parent / "shared" / "data" / "online-retail.csv.gz")

GOOD = "536365,85123A,WHITE HANGING HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom"


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in (HEADER, *lines)).encode())
    return path


invoices = st.one_of(
    st.integers(536365, 536372).map(str),
    st.integers(536365, 536372).map(lambda number: f"C{number}"),
    st.sampled_from(["A563185", "", "C", "C12x", "no number"]),
)
fields = st.tuples(
    invoices,
    st.sampled_from(["85123A", "71053", "POST", "", "ä µ", 'a "quoted" code', "with, comma"]),
    st.sampled_from(
        ["PLAIN", 'SAYS "HELLO"', "A, B", "", "TWO\nLINES", '"'],
    ),
    st.one_of(st.integers(-1000, 1000).map(str), st.sampled_from(["+6", " 6", "0", "-0", "007"])),
    st.sampled_from(["2010-12-01 08:26:00", "2011-03-31 19:55:00"]),
    st.one_of(
        st.decimals(-100, 10_000, places=2).map(str),
        st.sampled_from(["0", "0.001", "0.0009", "1.0005", ".5", "2.", "-11062.06", "38970.0", " 1.25", "0.29"]),
    ),
    st.sampled_from(["17850.0", "17850", "", "12346.0", ".0", "guest", "ß"]),
    st.sampled_from(["United Kingdom", "EIRE"]),
)
BAD = (
    "536365,85123A,SHORT,6,2010-12-01 08:26:00,2.55",
    GOOD + ",one too many",
    GOOD.replace(",6,", ",6.0,"),
    GOOD.replace(",6,", ",six,"),
    GOOD.replace(",6,", ",,"),
    GOOD.replace(",6,", ",1_000,"),
    GOOD.replace(",6,", ",６,"),
    GOOD.replace(",6,", ",9999999999999999999999,"),
    GOOD.replace("2.55", "NaN"),
    GOOD.replace("2.55", "Infinity"),
    GOOD.replace("2.55", "1e3"),
    GOOD.replace("2.55", "1_0.5"),
    GOOD.replace("2.55", "£2.55"),
    GOOD.replace("2.55", "２.５"),
    GOOD.replace("2.55", ""),
    GOOD.replace(",6,", ",999999999999,").replace("2.55", "999999999.99"),
    GOOD.replace("85123A", "X" * 101),
    GOOD.replace("17850.0", "178\x0050"),
    "garbage",
    " ",
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.one_of(fields, st.sampled_from(BAD)), max_size=60),
    end=st.sampled_from(["\n", "\r\n"]),
    packed=st.booleans(),
)
def test_good_lines_come_to_the_truth_and_bad_ones_are_named(
    tmp_path: Path, rows: list[tuple[str, ...] | str], end: str, packed: bool
) -> None:
    everything = io.StringIO()
    good = io.StringIO()
    number = 2
    bad = []
    for file in (everything, good):
        file.write(HEADER + end)
    for row in rows:
        if isinstance(row, str):
            everything.write(row + end)
            bad.append(number)
            number += 1
        else:
            for file in (everything, good):
                csv.writer(file, lineterminator=end).writerow(row)
            number += 1 + sum("\n" in field for field in row)
    path = tmp_path / ("orders.csv.gz" if packed else "orders.csv")
    content = everything.getvalue().encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    expected = truth(good.getvalue())
    expected["lines"] += len(bad)
    expected["rejected"] += len(bad)
    figures, malformed = tally(path)
    assert [line for line, _ in malformed] == bad
    assert figures == expected


def test_lines_of_an_invoice_that_comes_back_are_parts_of_one_order(tmp_path: Path) -> None:
    other = GOOD.replace("536365", "536366")
    with OrdersFile(write(tmp_path / "orders.csv", GOOD, GOOD, other, GOOD)) as source:
        events = [event for events in source for event in events]
    assert [(event.order_id, event.chunk, len(event.lines)) for event in events] == [
        ("536365", 2, 2),
        ("536366", 4, 1),
        ("536365", 5, 1),
    ]


def test_a_long_invoice_is_cut_into_parts(tmp_path: Path) -> None:
    with OrdersFile(write(tmp_path / "orders.csv", *[GOOD] * 450)) as source:
        sizes = [len(event.lines) for events in source for event in events]
    assert sizes == [200, 200, 50]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (BAD[0], "6 columns instead of 8"),
        (BAD[2], "Quantity '6.0' is not a whole number"),
        (BAD[8], "UnitPrice 'NaN' is not an amount of money"),
        (BAD[15], "over 10,000,000,000 pounds"),
        (BAD[17], "CustomerID '178\\x0050' holds a control character"),
        (GOOD + "x" * 70_000, "longer than 65,536 bytes"),
        (GOOD.replace("WHITE", '"WHITE'), "a quotation mark is never closed"),
    ],
)
def test_a_bad_line_says_why_and_costs_no_neighbour(tmp_path: Path, line: str, reason: str) -> None:
    figures, malformed = tally(write(tmp_path / "orders.csv", GOOD, line, GOOD, GOOD))
    assert [number for number, _ in malformed] == [3]
    assert reason in malformed[0][1]
    assert figures["gross"] == 3 * 6 * 2550


def test_bytes_that_are_no_utf8_cost_their_line(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(f"{HEADER}\n{GOOD}\n".encode() + GOOD.encode().replace(b"WHITE", b"\xa3\xff") + b"\n")
    figures, malformed = tally(path)
    assert malformed == [(3, "not UTF-8 at byte 15 of the line")]
    assert figures["lines"] == 2


@pytest.mark.parametrize("cut", [1, 8, 300, 4000])
def test_a_gzip_file_cut_short_keeps_what_came_before(tmp_path: Path, cut: int) -> None:
    lines = [GOOD.replace("536365", str(600_000 + i * 7919 % 100_000)) for i in range(5_000)]
    whole = gzip.compress("".join(f"{line}\n" for line in (HEADER, *lines)).encode())
    path = tmp_path / "orders.csv.gz"
    path.write_bytes(whole[:-cut])
    figures, malformed = tally(path)
    kept = figures["lines"] - 1
    assert kept == 5_000 if cut <= 8 else kept < 5_000
    assert figures["gross"] == kept * 6 * 2550
    assert malformed == [(kept + 2, "the gzip stream ends before its end: what follows is lost")]


def test_a_damaged_gzip_file_keeps_what_came_before(tmp_path: Path) -> None:
    lines = [GOOD.replace("536365", str(600_000 + i * 7919 % 100_000)) for i in range(5_000)]
    whole = bytearray(gzip.compress("".join(f"{line}\n" for line in (HEADER, *lines)).encode()))
    whole[-6] ^= 0xFF  # the checksum: all lines are there, and nobody can be sure of them
    path = tmp_path / "orders.csv.gz"
    path.write_bytes(whole)
    figures, malformed = tally(path)
    assert figures["gross"] == 5_000 * 6 * 2550
    assert [number for number, _ in malformed] == [5_002]
    assert "damaged" in malformed[0][1]


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n{GOOD}\n".encode()) + gzip.compress(f"{GOOD}\n".encode()) + b"\0" * 10)
    assert tally(path)[0]["lines"] == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"InvoiceNo,StockCode,Quantity\n1,2,3\n", "missing columns UnitPrice, CustomerID; found 'InvoiceNo'"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe\n", "no header"),
        (f"{HEADER},Quantity\n".encode(), "columns named twice: Quantity"),
        (gzip.compress(HEADER.encode(), mtime=0)[:12], "no header"),
        (b"PK\x03\x04 whatever\n", "missing columns InvoiceNo"),
    ],
)
def test_a_file_without_the_columns_is_refused_at_once(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(content)
    with pytest.raises(OrdersFileError) as refused:
        OrdersFile(path)
    assert reason in str(refused.value)


def test_columns_may_come_in_any_order_after_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(b"\xef\xbb\xbfCustomerID,UnitPrice,Quantity,StockCode,InvoiceNo\n,1.5,2,A,1\n")
    figures, malformed = tally(path)
    assert (figures["gross"], figures["customers"], malformed) == (3000, 1, [])


@pytest.mark.skipif(not RETAIL.exists(), reason="set EVENTMILL_RETAIL to the retail file")
def test_the_retail_file_comes_to_its_truth() -> None:
    figures, malformed = tally(RETAIL)
    assert malformed == []
    assert figures == truth(gzip.decompress(RETAIL.read_bytes()).decode())
