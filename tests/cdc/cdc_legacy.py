"""A legacy database of five related tables, and random work on it."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from cdc_mirror import TABLES

from eventmill.backends.postgres.replication.texts import SESSION, array_reader, reader

SCHEMA = """
CREATE TYPE kind AS ENUM ('home', 'work', 'other');
CREATE TABLE customers (
    id integer PRIMARY KEY, name text NOT NULL, vip boolean, balance numeric(12, 2), since timestamptz DEFAULT now(),
    tags text[], profile jsonb
);
CREATE TABLE addresses (
    customer_id integer NOT NULL REFERENCES customers ON UPDATE CASCADE ON DELETE CASCADE, kind kind NOT NULL,
    street text, PRIMARY KEY (customer_id, kind)
);
CREATE TABLE products (sku text PRIMARY KEY, price double precision, photo text, thumb bytea);
ALTER TABLE products ALTER COLUMN photo SET STORAGE EXTERNAL;
CREATE TABLE orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), customer_id integer REFERENCES customers ON UPDATE CASCADE ON DELETE
    SET NULL, total bigint, note text
);
CREATE TABLE lines (
    order_id uuid NOT NULL, number smallint NOT NULL, sku text, quantity integer, PRIMARY KEY (order_id, number)
);
ALTER TABLE lines REPLICA IDENTITY FULL;
"""


class Legacy:
    """The source database."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.rng = random.Random(seed)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def create(self, rows: int) -> None:
        with self.connect() as connection:
            connection.execute(SCHEMA)
            connection.execute(
                "INSERT INTO customers SELECT i, 'c' || i, i %% 3 = 0, i * 1.25, now(), ARRAY['a', NULL, 'q\"x,'],"
                " jsonb_build_object('n', i) FROM generate_series(1, %s) i",
                (rows,),
            )
            connection.execute("INSERT INTO addresses SELECT id, 'home', 'street ' || id FROM customers")
            connection.execute(
                "INSERT INTO products SELECT 'p' || i, i / 7.0, repeat(md5(i::text), 200), '\\x00ff'"
                " FROM generate_series(1, 40) i"
            )
            connection.execute("INSERT INTO orders SELECT gen_random_uuid(), id, id, NULL FROM customers")
            connection.execute("INSERT INTO lines SELECT o.id, n, 'p' || n, n FROM orders o, generate_series(1, 2) n")

    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Every row by table and key, as changes tell it."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        keys = {
            "customers": ["id"], "addresses": ["customer_id", "kind"], "products": ["sku"], "orders": ["id"],
            "lines": ["order_id", "number"],
        }  # fmt: skip
        with psycopg.connect(self.url, autocommit=True, options=SESSION) as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            for table in TABLES:
                cursor = connection.execute(f"SELECT * FROM public.{table}")  # type: ignore[arg-type]
                result = cursor.pgresult
                assert result is not None
                assert cursor.description is not None
                for number in range(result.ntuples):
                    row = {}
                    for index, column in enumerate(cursor.description):
                        value = result.get_value(number, index)
                        read = array_reader(bytes.decode) if column.name == "tags" else reader(column.type_code)
                        row[column.name] = None if value is None else read(value)
                    found[table, json.dumps({name: row[name] for name in keys[table]}, sort_keys=True)] = row
        return found

    @contextlib.contextmanager
    def busy(self, writers: int = 2) -> Iterator[list[int]]:
        """Random work meanwhile; yields a list that holds the number of transactions."""
        stop = threading.Event()
        counts = [0]
        failures: list[BaseException] = []

        def work(seed: int) -> None:
            rng = random.Random(seed)
            try:
                with self.connect() as connection:
                    while not stop.is_set():
                        with contextlib.suppress(psycopg.errors.IntegrityError, psycopg.errors.DeadlockDetected):
                            transaction(connection, rng)
                            counts[0] += 1
                        time.sleep(rng.random() * 0.01)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(self.rng.random(),), daemon=True) for _ in range(writers)]
        for thread in threads:
            thread.start()
        try:
            yield counts
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert not failures, failures


def transaction(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    """Some statements in one transaction, of which now and then some or all are rolled back."""
    with contextlib.suppress(Undone), connection.transaction():
        for _ in range(rng.choice((1, 1, 2, 5))):
            statement(connection, rng)
        if rng.random() < 0.2:
            with contextlib.suppress(Undone), connection.transaction():
                statement(connection, rng)
                if rng.random() < 0.5:
                    raise Undone
        if rng.random() < 0.1:
            time.sleep(rng.random() * 0.05)
        if rng.random() < 0.1:
            raise Undone


class Undone(Exception):
    pass


def statement(connection: psycopg.Connection[Any], rng: random.Random) -> None:
    some = rng.randrange(1, rng.choice((400, 6_000)))
    sku = f"p{rng.randrange(1, 60)}"
    order = "(SELECT id FROM orders OFFSET floor(random() * (SELECT count(*) FROM orders)) LIMIT 1)"
    choice = rng.randrange(15)
    if choice == 0:
        connection.execute(
            "INSERT INTO customers (id, name, profile) VALUES (%s, 'new', '{\"x\": 1.5}') ON CONFLICT DO NOTHING",
            (some,),
        )
    elif choice == 1:
        connection.execute(
            "UPDATE customers SET balance = balance + 1, name = name || '.' WHERE id BETWEEN %s AND %s",
            (some, some + rng.choice((0, 20))),
        )
    elif choice == 2:
        connection.execute("DELETE FROM customers WHERE id = %s", (some,))
    elif choice == 3:
        connection.execute(
            "UPDATE customers SET id = %s WHERE id = %s AND NOT EXISTS (SELECT 1 FROM customers WHERE id = %s)",
            (some + 6_000, some, some + 6_000),
        )
    elif choice == 4:
        connection.execute("UPDATE customers SET tags = NULL, vip = NOT vip WHERE id = %s", (some,))
    elif choice == 5:
        connection.execute(
            "INSERT INTO addresses SELECT id, %s, 'new' FROM customers WHERE id = %s ON CONFLICT (customer_id, kind)"
            " DO UPDATE SET street = addresses.street || '!'",
            (rng.choice(("home", "work", "other")), some),
        )
    elif choice == 6:
        connection.execute(
            "INSERT INTO products VALUES (%s, 1, %s, '\\x01') ON CONFLICT (sku) DO UPDATE SET price = products.price + 1",
            (sku, "".join(rng.choices("abcdef", k=9000))),
        )
    elif choice == 7:
        connection.execute("UPDATE products SET photo = photo || 'z' WHERE sku = %s", (sku,))
    elif choice == 8:
        connection.execute("DELETE FROM products WHERE sku = %s", (sku,))
    elif choice == 9:
        connection.execute(
            "UPDATE products SET sku = sku || '-' WHERE sku = %s AND length(sku) < 12", (sku,)
        )  # the large value moves along, and is not sent
    elif choice == 10:
        connection.execute("INSERT INTO orders (customer_id, total) SELECT id, 1 FROM customers WHERE id = %s", (some,))
    elif choice == 11:
        connection.execute(f"UPDATE orders SET total = total * 2 % 1000, note = 'n' WHERE id = {order}")  # type: ignore[arg-type]
    elif choice == 12:
        connection.execute(f"DELETE FROM orders WHERE id = {order}")  # type: ignore[arg-type]
    elif choice == 13:
        connection.execute(
            f"INSERT INTO lines SELECT {order}, %s, %s, 1 ON CONFLICT DO NOTHING",  # type: ignore[arg-type]
            (rng.randrange(1, 9), sku),
        )
    elif rng.random() < 0.03:
        connection.execute("TRUNCATE lines")
    else:
        connection.execute("UPDATE lines SET quantity = quantity + 1 WHERE number = %s AND sku = %s", (some % 9, sku))
