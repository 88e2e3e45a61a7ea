"""Customer: the old customer administration, seen as events.

Its tables are captured; what is entered for a customer there, in three places and at any time, makes one event when all
of it is known: `customer.registered`.
"""

from __future__ import annotations

from eventmill import Collected, Message, Transaction
from eventmill.cdc import Change

from . import audit
from .events import AccountOpened, AddressEntered, ContactEntered, CustomerRegistered
from .wiring import CRM, LEGACY_SOURCE, LEGACY_TABLES, service

app = service("customer")
crm = app.capture(LEGACY_SOURCE, tables=list(LEGACY_TABLES.values()), name=CRM)

ENTERED = {"contact": ContactEntered, "account": AccountOpened, "address": AddressEntered}


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    await tx.execute(
        "CREATE TABLE IF NOT EXISTS entries (customer TEXT NOT NULL, what TEXT NOT NULL, PRIMARY KEY (customer, what))"
    )


@app.on(*crm.classes.values(), group="customer.entered")
async def entered(change: Change, tx: Transaction, message: Message) -> None:
    """Say what is new in the administration in the words of the shop, once: a row of the snapshot may have been told as an
    insert, too, or, when it changed while it was copied, as an update only; and what was deleted may be entered again."""
    if change.after is not None:
        what = change.table.rpartition(".")[2]
        new = await tx.execute(
            "INSERT INTO entries (customer, what) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (change.after["customer"], what),
        )
        if new.rowcount:
            tx.publish(ENTERED[what](**change.after))
    await audit.handled(tx, "customer.entered", message)


@app.aggregator("registered", key="customer", all_of=[ContactEntered, AccountOpened, AddressEntered])
def registered(group: Collected) -> CustomerRegistered:
    contact, account, address = group.last(ContactEntered), group.last(AccountOpened), group.last(AddressEntered)
    assert contact is not None
    assert account is not None
    assert address is not None
    return CustomerRegistered(group.key, contact.name, account.terms, address.city)
