"""The customer administration: an old application that keeps contacts, accounts and addresses, and knows of no events.

Plain SQLAlchemy on a database of its own. Nobody wants to touch it; what the shop needs to know of its customers is captured
from its tables (`customer.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, create_engine, delete, event, insert, update

from .wiring import LEGACY, LEGACY_SCHEMA

metadata = MetaData(schema=LEGACY_SCHEMA)

contact = Table(
    "contact",
    metadata,
    Column("customer", String(40), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("email", String(200)),
)
account = Table(
    "account",
    metadata,
    Column("customer", String(40), primary_key=True),
    Column("terms", String(40), nullable=False),
)
address = Table(
    "address",
    metadata,
    Column("customer", String(40), primary_key=True),
    Column("street", String(200), nullable=False),
    Column("city", String(100), nullable=False),
)

Write = Callable[[Connection], object]


def engine() -> Engine:
    """The application's database, its tables made where they are missing."""
    made = create_engine(LEGACY, pool_pre_ping=True)
    if made.dialect.name == "sqlite":
        event.listen(made, "connect", _patient)
    if LEGACY_SCHEMA is not None:
        with made.begin() as connection:
            connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{LEGACY_SCHEMA}"')
    metadata.create_all(made)
    return made


def remove(database: Engine) -> None:
    """Drop its tables, where they are not in a file that goes with its folder."""
    if LEGACY_SCHEMA is not None:
        with database.begin() as connection:
            connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{LEGACY_SCHEMA}" CASCADE')


def _patient(connection: object, _: object) -> None:
    connection.execute("PRAGMA busy_timeout = 60000")  # type: ignore[attr-defined]


def enter_contact(customer: str, name: str, email: str | None) -> Write:
    return lambda connection: connection.execute(insert(contact).values(customer=customer, name=name, email=email))


def open_account(customer: str, terms: str) -> Write:
    return lambda connection: connection.execute(insert(account).values(customer=customer, terms=terms))


def enter_address(customer: str, street: str, city: str) -> Write:
    return lambda connection: connection.execute(insert(address).values(customer=customer, street=street, city=city))


def rename(customer: str, name: str) -> Write:
    return lambda connection: connection.execute(
        update(contact).where(contact.c.customer == customer).values(name=name)
    )


def change_terms(customer: str, terms: str) -> Write:
    return lambda connection: connection.execute(
        update(account).where(account.c.customer == customer).values(terms=terms)
    )


def relocate(customer: str, street: str, city: str) -> Write:
    return lambda connection: connection.execute(
        update(address).where(address.c.customer == customer).values(street=street, city=city)
    )


def forget_address(customer: str) -> Write:
    return lambda connection: connection.execute(delete(address).where(address.c.customer == customer))


def save(database: Engine, *writes: Write) -> None:
    """Make some writes in one transaction."""
    with database.begin() as connection:
        for write in writes:
            write(connection)
