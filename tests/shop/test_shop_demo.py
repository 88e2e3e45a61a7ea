"""The demo as a user starts it, and its verdict on databases that were tampered with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from retail import HEADER, ROOT, tally, truth

from shop.events import GoodsReturned, OrderPlaced
from shop.trial.generator import Generator
from shop.trial.provider import fate_of

DEMO = (sys.executable, "-m", "eventmill", "demo")
KEYS = [
    "lines",
    "orders",
    "returns",
    "adjustments",
    "rejected",
    "gross",
    "refunded",
    "net",
    "customers",
    "products_sold",
    "customers_sha256",
    "published",
    "handled",
    "lost",
    "duplicated",
    "out_of_order",
    "dead",
    "money_captured",
    "money_refunded",
    "money_shipped",
    "provider_charges",
    "stock_opening",
    "stock_reserved",
    "stock_shipped",
    "stock_free",
    "sagas_completed",
    "sagas_compensated",
    "sagas_attention",
    "sagas_open",
    "schedule_fires",
    "schedule_expected",
    "coarse_events",
    "coarse_expected",
    "fold_mismatches",
    "view_mismatches",
    "violations",
    "kills",
    "pauses",
    "seconds",
    "events_per_second",
    "malformed",
    "malformed_lines",
    "saga",
    "fail",
    "processes",
    "seed",
    "chaos",
    "restarts",
    "terminated",
]

SOUND = ("lost", "duplicated", "out_of_order", "dead", "fold_mismatches", "view_mismatches", "violations")

JUDGE = """
import asyncio, json, os, sys
from pathlib import Path
from shop.services import APPS
from shop import legacy
from shop.trial import fold, joined, schedules, verdict
from shop.trial.desk import Desk

async def judge():
    for app in APPS:
        await app.open()
    desk = Desk(Path(sys.argv[1]) / "desk.db")
    await desk.collect()
    words = [word for word, query in verdict.VIOLATIONS.items() if desk.one(query)]
    words += await schedules.violations(desk)
    refolded = await fold.fresh()
    known = joined.customers(legacy.engine())
    figures = {
        **verdict.delivery(desk, broker=True), "fold_mismatches": await fold.mismatches(refolded),
        "view_mismatches": await joined.mismatches(refolded, known),
    }
    print(json.dumps([figures, words]))
    desk.close()
    for app in APPS:
        await app.close()

asyncio.run(judge())
"""


def environment(**more: str) -> dict[str, str]:
    paths = [str(ROOT / "src"), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def demo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*DEMO, *arguments), capture_output=True, text=True, timeout=160, cwd=folder, env=environment(), check=False
    )


def verdict_of(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert run.returncode == 0, run.stderr + run.stdout
    found: dict[str, Any] = json.loads(run.stdout)
    assert list(found) == KEYS
    assert [found[key] for key in SOUND] == [0, 0, 0, 0, 0, 0, []]
    assert found["published"] > 0
    assert found["handled"] > found["published"]
    assert found["money_captured"] - found["money_refunded"] == found["money_shipped"]
    assert found["stock_opening"] == found["stock_free"] + found["stock_shipped"]
    assert found["coarse_events"] == found["coarse_expected"] > 0
    assert found["schedule_fires"] == found["schedule_expected"] > 0
    assert [found[key] for key in ("stock_reserved", "sagas_open", "sagas_attention")] == [0, 0, 0]
    return found


def made_up(seed: int, rate: float, seconds: float) -> tuple[int, int, int]:
    events = [event for arrival in Generator(seed, rate, seconds) for event in arrival.events]
    orders = [event for event in events if isinstance(event, OrderPlaced)]
    returns = [event for event in events if isinstance(event, GoodsReturned)]
    return len(orders), len(returns), sum(line.amount for order in orders for line in order.lines)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of a short run in good order."""
    folder = tmp_path_factory.mktemp("demo") / "kept"
    run = demo("--seconds", "1", "--rate", "40", "--keep", str(folder), folder=folder.parent)
    assert run.returncode == 0, run.stderr + run.stdout
    assert run.stdout.endswith("VERDICT: ok\n")
    return folder


def test_made_up_orders_are_the_same_for_the_same_seed() -> None:
    assert list(Generator(7, 100, 3)) == list(Generator(7, 100, 3))
    assert list(Generator(7, 100, 3)) != list(Generator(8, 100, 3))


def test_made_up_orders_all_arrive(tmp_path: Path) -> None:
    found = verdict_of(demo("--seconds", "2", "--rate", "60", "--seed", "5", "--json", folder=tmp_path))
    orders = made_up(5, 60, 2)
    assert (found["orders"], found["returns"], found["gross"]) == orders
    assert (found["kills"], found["processes"], found["seed"]) == (0, 2, 5)
    assert (found["sagas_completed"], found["sagas_compensated"], found["provider_charges"]) == (
        orders[0],
        0,
        orders[0],
    )
    assert (found["money_captured"], found["money_refunded"]) == (orders[2], 0)
    assert list(tmp_path.iterdir()) == []


def test_payments_that_fail_for_good_end_the_same_whoever_leads(tmp_path: Path) -> None:
    found = [
        verdict_of(demo(
            "--seconds", "1", "--rate", "60", "--fail", "0.4", "--saga", saga, "--json", folder=tmp_path,
        ))
        for saga in ("orchestrated", "choreographed")
    ]  # fmt: skip
    assert [each.pop("saga") for each in found] == ["orchestrated", "choreographed"]
    same = (
        *(key for key in KEYS[: KEYS.index("published")]),
        *(key for key in KEYS if key.startswith(("money", "provider", "stock", "sagas", "coarse"))),
    )
    assert {key: found[0][key] for key in same} == {key: found[1][key] for key in same}
    ended = found[0]
    orders = [event for arrival in Generator(1, 60, 1) for event in arrival.events if isinstance(event, OrderPlaced)]
    fates = [fate_of("1", f"{order.order_id}/{order.chunk}", 0.4) for order in orders]
    costs = [sum(line.amount for line in order.lines) for order in orders]
    assert {"declined", "silent"} < set(fates)
    assert ended["sagas_completed"] == fates.count(None)
    assert ended["sagas_compensated"] == len(fates) - fates.count(None)
    assert ended["money_shipped"] == sum(cost for cost, fate in zip(costs, fates, strict=True) if fate is None)
    assert ended["money_refunded"] == sum(cost for cost, fate in zip(costs, fates, strict=True) if fate == "silent")


@pytest.mark.parametrize("saga", ["orchestrated", "choreographed"])
def test_made_up_orders_all_arrive_under_chaos(tmp_path: Path, saga: str) -> None:
    options = ("--seconds", "4", "--rate", "60", "--chaos", "--saga", saga, "--fail", "0.2", "--json")
    found = verdict_of(demo(*options, folder=tmp_path))
    assert (found["orders"], found["returns"], found["gross"]) == made_up(1, 60, 4)
    assert found["kills"] >= 3
    assert found["chaos"] is True


def test_a_file_comes_to_its_truth_and_its_bad_lines_are_named(tmp_path: Path) -> None:
    good = [
        f"{536365 + i // 7},{85000 + i % 13},A THING,{i % 9 - 1},2010-12-01 08:26:00,{i % 5}.25,{17850 + i % 6}.0,EIRE"
        for i in range(300)
    ]
    good += [f"C{536365 + i},85001,A THING,-1,2010-12-02 08:26:00,1.5,,EIRE" for i in range(20)]
    good += ["A563185,B,Adjust bad debt,1,2011-08-12 14:50:00,11062.06,,United Kingdom"]
    bad = ["536365,85123A,SHORT", good[0].replace(",-1,", ",1.5,")]
    path = tmp_path / "orders.csv"
    path.write_text("\n".join((HEADER, *bad, *good)) + "\n")
    found = verdict_of(demo("--orders", "orders.csv", "--json", folder=tmp_path))
    expected = truth("\n".join((HEADER, *good)) + "\n")
    expected["lines"] += 2
    expected["rejected"] += 2
    assert {key: found[key] for key in expected} == expected
    assert tally(path)[0] == expected
    assert found["malformed"] == 2
    assert [line["line"] for line in found["malformed_lines"]] == [2, 3]
    assert "3 columns" in found["malformed_lines"][0]["reason"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--orders", "none.csv"), "none.csv"),
        (("--orders", "."), "directory"),
        (("--orders", "wrong.csv"), "missing columns StockCode, Quantity, UnitPrice, CustomerID"),
        (("--processes", "0"), "processes"),
        (("--store", "sqlite:///shop.db"), "postgresql://"),
        (("--store", "postgresql://localhost/shop?schema=mine"), "schema"),
        (("--restart", "true"), "--chaos"),
        (("--seconds", "nan"), "seconds"),
        (("--rate", "-1"), "rate"),
        (("--keep", "full"), "not empty"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(tmp_path: Path, arguments: Sequence[str], words: str) -> None:
    (tmp_path / "wrong.csv").write_text("InvoiceNo,Price\n1,2\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "order.db").touch()
    run = demo(*arguments, folder=tmp_path)
    assert run.returncode == 2
    assert words in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        (*DEMO, "--seconds", "60", "--rate", "20"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(TMPDIR=str(tmp_path)),
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(children(process.pid)) < 3:  # the provider, and both workers
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    workers = children(process.pid)
    process.send_signal(number)
    process.communicate(timeout=40)
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("service", "statement", "figure", "word"),
    [
        ("payment", "DELETE FROM handled WHERE n = 3", "lost", None),
        ("stock", "INSERT INTO handled SELECT 10000, consumer, source, id, topic, key, sequence "
                  "FROM handled WHERE n = 3", "duplicated", None),
        ("shipping", "UPDATE handled SET key = 'k', sequence = 100 - n",
         "out_of_order", None),
        ("payment", "UPDATE captures SET amount = amount + 1 WHERE n = 1", None, "money-not-conserved"),
        ("payment", "DELETE FROM captures", None, "money-not-conserved"),
        ("orders-view", "UPDATE invoices__1 SET paid = paid + 1", "fold_mismatches", "paid-differs-from-captures"),
        ("orders-view", "DELETE FROM entries__1 WHERE n = 1", "fold_mismatches", "view-differs-from-ledger"),
        ("orders-view", "UPDATE product_sales__1 SET sold = sold + 1", "fold_mismatches", None),
        ("orders-view", "DELETE FROM eventmill_log WHERE type = 'payment.captured'", "lost", None),
        ("order", "UPDATE eventmill_log SET data = CAST(replace(data, '\"remaining\":0', '\"remaining\":1') AS BLOB)"
                  " WHERE type = 'order.dispatched'", "fold_mismatches", None),
        ("orders-view", "UPDATE invoices__1 SET city = 'Nowhere'", "view_mismatches", None),
        ("orders-view", "UPDATE invoices__1 SET name = NULL", "view_mismatches", None),
        ("legacy", "UPDATE account SET terms = 'never'", "view_mismatches", None),
        ("provider", "UPDATE entries SET amount = amount + 1 WHERE kind = 'charge'", None, "provider-differs-from-shipped"),
        ("provider", "DELETE FROM entries WHERE kind = 'charge'", None, "provider-differs-from-captures"),
        ("provider", "UPDATE entries SET kind = 'payout', key = 'x' WHERE n = 1", None, "payout-differs-from-return"),
        ("payment", "UPDATE settlements SET captured = captured + 1", None, "settlement-differs"),
        ("payment", "DELETE FROM fires WHERE n = 1", None, "fires-differ-from-plan"),
        ("payment", "INSERT INTO fires SELECT 10000, schedule, moment FROM fires WHERE n = 1", None, "moment-fired-twice"),
        ("payment", "UPDATE fires SET schedule = 'settle', moment = '2026-01-01T00:00:01+00:00' WHERE n = 1", None,
         "schedule-fired-too-often-or-not"),
        ("payment", "UPDATE captures SET invoice = 'x'", None, "shipped-unpaid"),
        ("order", "INSERT INTO cancelled SELECT n, invoice, chunk FROM accepted WHERE kind = 'order'", None,
         "shipped-and-cancelled"),
        ("stock", "UPDATE products SET reserved = reserved - 1", None, "stock-not-conserved"),
        ("stock", "UPDATE products SET reserved = reserved + 1, free = free - 1", None, "stock-still-reserved"),
        ("stock", "DELETE FROM movements WHERE kind = 'shipped'", None, "stock-differs-from-ledger"),
        ("shipping", "DELETE FROM shipments WHERE n = 1", None, "neither-shipped-nor-cancelled"),
        ("shipping", "INSERT INTO shipments SELECT 10000, order_id, chunk FROM shipments WHERE n = 1",
         None, "order-shipped-twice"),
        ("payment", "UPDATE handled SET id = 'x' WHERE n = 1", "lost", "message-from-nowhere"),
    ],
)  # fmt: skip
def test_the_verdict_sees_what_is_wrong(
    tmp_path: Path, kept: Path, service: str, statement: str, figure: str | None, word: str | None
) -> None:
    folder = tmp_path / "tampered"
    shutil.copytree(kept, folder)
    database = sqlite3.connect(folder / f"{service}.db")
    assert database.execute(statement).rowcount > 0
    database.commit()
    database.close()
    judged = subprocess.run(
        (sys.executable, "-c", JUDGE, str(folder)),
        capture_output=True, text=True, timeout=60, env=environment(EVENTMILL_SHOP=str(folder)), check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stderr
    figures, words = json.loads(judged.stdout)
    if figure is None:
        assert [
            figures[name] for name in ("lost", "duplicated", "out_of_order", "fold_mismatches", "view_mismatches")
        ] == [0] * 5
    else:
        assert figures[figure] > 0
    assert (word in words) if word else (words == [])
