"""Whether the schedules have fired at each of their moments, once: by what their tasks wrote, and by the plans."""

from __future__ import annotations

from .. import payment
from .desk import Desk

EXPECTED = """
SELECT sum(moments) FROM (
    SELECT round((julianday(max(moment)) - julianday(min(moment))) * 86400 / ?) + 1 AS moments
    FROM payment_fires GROUP BY schedule
)
"""

TWICE = "SELECT count(*) FROM (SELECT 1 FROM payment_fires GROUP BY schedule, moment HAVING count(*) > 1)"


def figures(desk: Desk) -> dict[str, int]:
    """How often the schedules' tasks have run, and how many moments there were from the first to the last."""
    ((expected,),) = desk.sql.execute(EXPECTED, (payment.EVERY,))
    return {
        "schedule_fires": desk.one("SELECT count(*) FROM payment_fires"),
        "schedule_expected": int(expected or 0),
    }


async def violations(desk: Desk) -> list[str]:
    """What is wrong, in words. What was fired and not run when the workers stopped waits in the queue."""
    found = figures(desk)
    words = []
    if found["schedule_fires"] != found["schedule_expected"]:
        words.append("schedule-fired-too-often-or-not")
    if desk.one(TWICE):
        words.append("moment-fired-twice")
    waiting = await payment.app.store.jobs(payment.app.tasks.store_queue(payment.NIGHT), limit=10_000)
    planned = sum([plan.fires for plan in await payment.app.tasks.schedules.list()])
    if planned != found["schedule_fires"] + len(waiting):
        words.append("fires-differ-from-plan")
    return words
