"""Semantic locks: a saga keeps others of its kind off a resource from one of its steps to its end.

A lock is a document that names its holder and who waits. It is taken in the transaction of the step that needs it, and
given on in the transaction that ends the saga: so there is none without a living instance.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from eventmill.core.document import ABSENT
from eventmill.patterns.saga.instance import Instance, document_key
from eventmill.runtime.transaction import Transaction


class Waiter(msgspec.Struct, frozen=True):
    """Who waits: the instance, and where to wake it."""

    saga: str
    key: str
    queue: str
    topic: str


class Lock(msgspec.Struct):
    """A resource's lock. holder: the key of the instance's document."""

    holder: str
    since: int
    waiting: list[Waiter] = []


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Lock).decode


def lock_key(resource: str) -> str:
    """Where the lock of a resource is stored."""
    return f"lock/{resource}"


async def take(tx: Transaction, instance: Instance, resources: Collection[str], now: int, *, wait: bool) -> str | None:
    """Take all of the locks, in one order for everybody; returns one that is not free, or None.

    Where one is not free and it is to `wait`, the instance stands in line when this commits.
    """
    me = document_key(instance.saga, instance.key)
    for resource in sorted(set(resources)):
        key = lock_key(resource)
        found = await tx.get(key)
        if found is None:
            tx.put(key, _encode(Lock(me, now)), expected=ABSENT)
        else:
            lock = _decode(found.data)
            if lock.holder != me:
                waiter = Waiter(instance.saga, instance.key, instance.queue, instance.topic)
                if wait and waiter not in lock.waiting:
                    lock.waiting.append(waiter)
                    tx.put(key, _encode(lock), expected=found.version)
                if wait and resource not in instance.wants:
                    instance.wants.append(resource)
                return resource
        if resource in instance.wants:
            instance.wants.remove(resource)
        if resource not in instance.locks:
            instance.locks.append(resource)
    return None


async def release(tx: Transaction, instance: Instance, now: int) -> Sequence[Waiter]:
    """Give everything on, and leave every line; returns whom to wake: they hold the lock already."""
    me = document_key(instance.saga, instance.key)
    woken = []
    for resource in sorted({*instance.locks, *instance.wants}):
        key = lock_key(resource)
        found = await tx.get(key)
        if found is None:
            continue
        lock = _decode(found.data)
        if lock.holder != me:
            kept = [each for each in lock.waiting if document_key(each.saga, each.key) != me]
            if len(kept) != len(lock.waiting):
                tx.put(key, _encode(Lock(lock.holder, lock.since, kept)), expected=found.version)
            continue
        if not lock.waiting:
            tx.put(key, None, expected=found.version)
            continue
        following, *rest = lock.waiting
        tx.put(key, _encode(Lock(document_key(following.saga, following.key), now, rest)), expected=found.version)
        woken.append(following)
    instance.locks, instance.wants = [], []
    return woken
