"""The joined view held against the tables it was joined from: the administration's own, and the invoices of a fresh fold."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Engine, select

from .. import legacy
from .fold import Fold, differences

Customers = dict[str, tuple[str | None, str | None, str | None]]
"""Name, terms and city, by customer."""


def customers(database: Engine) -> Customers:
    """Everybody the administration knows."""
    query = (
        select(legacy.contact.c.customer, legacy.contact.c.name, legacy.account.c.terms, legacy.address.c.city)
        .join(legacy.account, legacy.account.c.customer == legacy.contact.c.customer, isouter=True)
        .join(legacy.address, legacy.address.c.customer == legacy.contact.c.customer, isouter=True)
    )
    with database.connect() as connection:
        return {row[0]: (row[1], row[2], row[3]) for row in connection.execute(query)}


async def mismatches(fold: Fold, known: Customers) -> int:
    """How many rows of the view differ from the join, missing and surplus ones included."""
    expected = Counter(
        (invoice, customer, row["ordered"], row["returned"], *known.get(customer, (None, None, None)))
        for (invoice, customer), row in fold.invoices.items()
    )
    return await differences("invoices", "invoice, customer, ordered, returned, name, terms, city", expected)
