"""Payment: has the provider charge what an order costs, and pay out what a return is worth, customer by customer.

The provider is somebody else's: it fails, is slow, and sometimes charges without saying so. So each call is a task, with
retries and one idempotency key for all of them. A charge that is never answered is given up by the expiry of unpaid
orders; what the provider may have taken is given back: by the saga's compensation, or, where nobody directs, by this service.
"""

from __future__ import annotations

from datetime import UTC, datetime

from eventmill import Message, TaskContext, Transaction, exponential

from . import audit
from .events import (
    ChargePayment,
    GoodsReturned,
    OrderPlaced,
    PaymentCaptured,
    PaymentDeclined,
    PaymentExpired,
    PaymentRefunded,
    Share,
    VoidPayment,
    shares,
)
from .provider import Declined, NoAnswer, Provider
from .wiring import CHOREOGRAPHED, NUMBER, PROVIDER, service

app = service("payment")
NIGHT = "night"
app.tasks.queue("provider", concurrency=50)
provider = Provider(PROVIDER)

TRIES = 6
"""Calls without an answer after which a charge is left to the expiry."""

EXPIRY = 2.0
"""Seconds after which an order whose charge nobody answers for is given up."""

EVERY = 2
"""Seconds from one settlement, and one expiry, to the next: a night in the life of this shop."""

AGAIN = exponential(0.1, cap=2.0, attempts=1_000)


@app.setup
async def tables(tx: Transaction) -> None:
    await audit.prepare(tx)
    for name in ("captures", "refunds"):
        await tx.execute(
            f"""
            CREATE TABLE IF NOT EXISTS {name} (
                {NUMBER},
                invoice TEXT NOT NULL,
                chunk BIGINT NOT NULL,
                customer TEXT NOT NULL,
                amount BIGINT NOT NULL,
                settled TEXT
            )
            """
        )
    await tx.execute("CREATE INDEX IF NOT EXISTS unsettled ON captures (n) WHERE settled IS NULL")
    await tx.execute("CREATE INDEX IF NOT EXISTS captures_by_part ON captures (invoice, chunk)")
    await tx.execute(
        """
        CREATE TABLE IF NOT EXISTS payments (
            order_id TEXT NOT NULL,
            chunk BIGINT NOT NULL,
            state TEXT NOT NULL,
            since DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (order_id, chunk)
        )
        """
    )
    await tx.execute("CREATE INDEX IF NOT EXISTS silent_payments ON payments (since) WHERE state = 'silent'")
    await tx.execute(f"CREATE TABLE IF NOT EXISTS fires ({NUMBER}, schedule TEXT NOT NULL, moment TEXT NOT NULL)")
    await tx.execute(
        f"CREATE TABLE IF NOT EXISTS settlements ({NUMBER}, moment TEXT NOT NULL, captured BIGINT NOT NULL)"
    )


# Charging


if CHOREOGRAPHED:

    @app.on(OrderPlaced, group="payment.charge")
    async def placed(event: OrderPlaced, tx: Transaction, message: Message) -> None:
        await begin(tx, ChargePayment(event.order_id, event.chunk, event.placed_at, shares(event.lines, 1)), message)

else:

    @app.on(ChargePayment, group="payment.charge")
    async def commanded(command: ChargePayment, tx: Transaction, message: Message) -> None:
        await begin(tx, command, message)


async def begin(tx: Transaction, command: ChargePayment, message: Message) -> None:
    await tx.execute(
        "INSERT INTO payments (order_id, chunk, state, since) VALUES (?, ?, 'asked', ?)",
        (command.order_id, command.chunk, datetime.now(UTC).timestamp()),
    )
    tx.send(charge.job(command.order_id, command.chunk, command.placed_at, command.shares))
    await audit.handled(tx, "payment.charge", message)


def key(order_id: str, chunk: int) -> str:
    """By which the provider knows the payment of one part, whatever becomes of it."""
    return f"{order_id}/{chunk}"


@app.task(queue="provider", retry=AGAIN)
async def charge(
    order_id: str, chunk: int, placed_at: str, owed: list[Share], context: TaskContext, tx: Transaction
) -> None:
    """Charge one part. Whoever asks first, this task or the expiry, settles what becomes of it."""
    try:
        await provider.charge(key(order_id, chunk), sum(share.amount for share in owed))
    except Declined as declined:
        if await move(tx, order_id, chunk, "declined"):
            tx.publish(PaymentDeclined(order_id, chunk, str(declined)))
    except NoAnswer:
        if context.attempt < TRIES:
            raise
        await move(tx, order_id, chunk, "silent")
    else:
        if await move(tx, order_id, chunk, "captured"):
            await tx.executemany(
                "INSERT INTO captures (invoice, chunk, customer, amount) VALUES (?, ?, ?, ?)",
                [(order_id, chunk, share.customer, share.amount) for share in owed],
            )
            tx.publish(PaymentCaptured(order_id, chunk, placed_at, owed))


async def move(tx: Transaction, order_id: str, chunk: int, state: str) -> bool:
    """Settle a payment that was asked for; returns whether nobody else has."""
    moved = await tx.execute(
        "UPDATE payments SET state = ?, since = ? WHERE order_id = ? AND chunk = ? AND state = 'asked'",
        (state, datetime.now(UTC).timestamp(), order_id, chunk),
    )
    return moved.rowcount == 1


# Giving back


@app.on(VoidPayment, group="payment.void")
async def voided(command: VoidPayment, tx: Transaction, message: Message) -> None:
    """Checkout has failed after its charge, or while nobody knows whether there was one."""
    await tx.execute(
        "UPDATE payments SET state = 'voided' WHERE order_id = ? AND chunk = ?", (command.order_id, command.chunk)
    )
    await tx.execute(
        "INSERT INTO captures (invoice, chunk, customer, amount)"
        " SELECT invoice, chunk, customer, -amount FROM captures WHERE invoice = ? AND chunk = ?",
        (command.order_id, command.chunk),
    )
    tx.send(give_back.job(command.order_id, command.chunk))
    await audit.handled(tx, "payment.void", message)


@app.task(queue="provider", retry=AGAIN)
async def give_back(order_id: str, chunk: int) -> None:
    """Have the provider return what it has charged for a part, if anything, and charge nothing for it any more."""
    await provider.void(key(order_id, chunk))


@app.on(GoodsReturned, group="payment.refund")
async def returned(event: GoodsReturned, tx: Transaction, message: Message) -> None:
    tx.send(pay_out.job(event.return_id, event.chunk, event.returned_at, shares(event.lines, -1)))
    await audit.handled(tx, "payment.refund", message)


@app.task(queue="provider", retry=AGAIN)
async def pay_out(return_id: str, chunk: int, returned_at: str, owed: list[Share], tx: Transaction) -> None:
    """Give customers back what returned goods are worth."""
    await provider.pay_out(key(return_id, chunk), sum(share.amount for share in owed))
    await tx.executemany(
        "INSERT INTO refunds (invoice, chunk, customer, amount) VALUES (?, ?, ?, ?)",
        [(return_id, chunk, share.customer, share.amount) for share in owed],
    )
    tx.publish(PaymentRefunded(return_id, chunk, returned_at, owed))


# Schedules


@app.schedule(every=EVERY, missed="all")
@app.task(queue=NIGHT)
async def settle(context: TaskContext, tx: Transaction) -> None:
    """Close the books over what was captured since the last settlement."""
    moment = await fired(tx, "settle", context)
    settled = await tx.execute("UPDATE captures SET settled = ? WHERE settled IS NULL RETURNING amount", (moment,))
    await tx.execute(
        "INSERT INTO settlements (moment, captured) VALUES (?, ?)", (moment, sum(amount for (amount,) in settled))
    )


@app.schedule(every=EVERY, missed="all")
@app.task(queue=NIGHT)
async def expire(context: TaskContext, tx: Transaction) -> None:
    """Give up orders that nobody has paid, as far as one can know."""
    await fired(tx, "expire", context)
    expired = await tx.execute(
        "UPDATE payments SET state = 'expired' WHERE state = 'silent' AND since < ? RETURNING order_id, chunk",
        (datetime.now(UTC).timestamp() - EXPIRY,),
    )
    for order_id, chunk in expired:
        tx.publish(PaymentExpired(order_id, chunk))
        if CHOREOGRAPHED:
            tx.send(give_back.job(order_id, chunk))


async def fired(tx: Transaction, schedule: str, context: TaskContext) -> str:
    """Note that a schedule's task has run; returns the moment that was meant."""
    assert context.fire is not None, "only its schedule sends it"
    moment = context.fire.isoformat()
    await tx.execute("INSERT INTO fires (schedule, moment) VALUES (?, ?)", (schedule, moment))
    return moment
