"""A file of invoice lines as the shop's intake.

What a line means: an invoice of digits is an order, and those of its lines whose quantity and
price are above zero count; its other lines are stock adjustments. C and digits is a return. Any
other invoice number is rejected, and so is a line that cannot be read; that one is malformed, too.
Lines of one invoice that follow one another travel together; an invoice may come back later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Self

from ..events import GoodsReturned, Intake, Line, LinesRejected, OrderPlaced, Rejection, StockAdjusted
from .lines import is_gzip, lines
from .records import Record, Records

COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "UnitPrice", "CustomerID")
PART = 200
"""The most lines in one event."""

GREATEST = 10**13
"""The most that one line may cost, in thousandths of a pound, so that sums stay exact in 64 bits."""

# Stricter than int() and Decimal(), which take underscores, exponents, NaN and any script's digits.
_QUANTITY = re.compile(r"[+-]?[0-9]{1,12}")
_PRICE = re.compile(r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class OrdersFileError(Exception):
    """The file as a whole is not what it should be: nothing of it was read."""


class Flaw(Exception):
    """One line cannot be read, and why."""


class OrdersFile:
    """A context manager around the open file; iterate over it once, for lists of events.

    Opening it checks the header, and raises OrdersFileError naming what is missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
            self.size = path.stat().st_size
        except OSError as error:
            raise OrdersFileError(f"{path}: {error.strerror}") from error
        try:
            self._records = iter(Records(lines(self._file)))
            self._read_header(path)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def read(self) -> int:
        """How many of the file's `size` bytes were read so far."""
        return self._file.tell()

    def _read_header(self, path: Path) -> None:
        if path.suffix == ".gz" and not is_gzip(self._file):
            raise OrdersFileError(f"{path}: named .gz, but not a gzip file")
        try:
            header = next(self._records, None)
        except OSError as error:
            raise OrdersFileError(f"{path}: {error.strerror}") from error
        if header is None or header.flaw is not None:
            why = "it is empty" if header is None else header.flaw
            raise OrdersFileError(f"{path}: no header with the columns {', '.join(COLUMNS)}: {why}")
        names = [name.removeprefix("\ufeff") for name in header.fields]
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            found = ", ".join(clip(name) for name in names[:12])
            raise OrdersFileError(f"{path}: missing columns {', '.join(missing)}; found {found}")
        twice = sorted({name for name in names if name in COLUMNS and names.count(name) > 1})
        if twice:
            raise OrdersFileError(f"{path}: columns named twice: {', '.join(twice)}")
        self._invoice, self._product, self._quantity, self._price, self._customer = map(names.index, COLUMNS)
        self._date = names.index("InvoiceDate") if "InvoiceDate" in names else None

    def __iter__(self) -> Iterator[list[Intake]]:
        part = _Part()
        rejections: list[Rejection] = []
        for record in self._records:
            try:
                invoice, date, line = self._line(record)
            except Flaw as flaw:
                rejections.append(Rejection(record.number, str(flaw), malformed=True))
            else:
                if (invoice, date) != (part.invoice, part.date) or len(part) >= PART:
                    if part:
                        yield part.events()
                    part = _Part(invoice, date)
                if not part.take(line):
                    reason = f"invoice {clip(invoice)} is neither an order (digits) nor a return (C and digits)"
                    rejections.append(Rejection(line.number, reason, malformed=False))
            if len(rejections) >= PART:
                yield [LinesRejected(rejections)]
                rejections = []
        if part:
            yield part.events()
        if rejections:
            yield [LinesRejected(rejections)]

    def _line(self, record: Record) -> tuple[str, str, Line]:
        """The invoice, its date and the line of a record, or Flaw."""
        if record.flaw is not None:
            raise Flaw(record.flaw)
        fields = record.fields
        invoice = self._text(fields, self._invoice, "InvoiceNo")
        product = self._text(fields, self._product, "StockCode")
        customer = self._text(fields, self._customer, "CustomerID").removesuffix(".0") or "guest"
        date = "" if self._date is None else self._text(fields, self._date, "InvoiceDate")
        quantity = fields[self._quantity].strip(" ")
        if _QUANTITY.fullmatch(quantity) is None:
            raise Flaw(f"Quantity {clip(quantity)} is not a whole number")
        price = fields[self._price].strip(" ")
        if _PRICE.fullmatch(price) is None:
            raise Flaw(f"UnitPrice {clip(price)} is not an amount of money")
        line = Line(record.number, product, customer, int(quantity), int(Decimal(price) * 1000))
        if abs(line.amount) > GREATEST:
            raise Flaw(f"Quantity x UnitPrice is over {GREATEST // 1000:,} pounds")
        return invoice, date, line

    @staticmethod
    def _text(fields: list[str], column: int, name: str) -> str:
        text = fields[column]
        if len(text) > 100:
            raise Flaw(f"{name} is longer than 100 characters")
        if _UNPRINTABLE.search(text):
            raise Flaw(f"{name} {clip(text)} holds a control character")
        return text


class _Part:
    """Lines of one invoice that followed one another, sorted by what becomes of them."""

    def __init__(self, invoice: str = "", date: str = "") -> None:
        self.invoice = invoice
        self.date = date
        self._order: list[Line] = []
        self._returned: list[Line] = []
        self._adjusted: list[Line] = []

    def __len__(self) -> int:
        return len(self._order) + len(self._returned) + len(self._adjusted)

    def take(self, line: Line) -> bool:
        """Keep the line; False when its invoice number means nothing here."""
        if self.invoice.isdigit():
            (self._order if line.quantity > 0 and line.price > 0 else self._adjusted).append(line)
            return True
        if self.invoice[:1] == "C" and self.invoice[1:].isdigit():
            self._returned.append(line)
            return True
        return False

    def events(self) -> list[Intake]:
        found: list[Intake] = []
        if self._order:
            found.append(OrderPlaced(self.invoice, self._order[0].number, self.date, self._order))
        if self._returned:
            found.append(GoodsReturned(self.invoice, self._returned[0].number, self.date, self._returned))
        if self._adjusted:
            found.append(StockAdjusted(self.invoice, self._adjusted[0].number, self._adjusted))
        return found


def clip(text: str) -> str:
    """Foreign text for a message: quoted, without control characters, at most about 40 of them."""
    return ascii(text if len(text) <= 40 else text[:37] + "...")
