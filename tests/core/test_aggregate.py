"""What is refused when a module with aggregates is imported, and what a fold and a fingerprint go by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from eventmill import Aggregate, ConfigurationError, Decider, DecodeError, Event, UnknownEventError
from eventmill.core.aggregate import AggregateEntity
from eventmill.core.branches import spoken_of
from eventmill.core.decider import DeciderEntity
from eventmill.core.registry import REGISTRY


class LampLit(Event, name="lamp.lit"):
    colour: str = "white"


class LampBroken(Event, name="lamp.broken"):
    pass


class BulbSold(Event, name="bulb.sold"):
    pass


class Unnamed(Event):
    pass


events = SimpleNamespace(LampLit=LampLit)


def entity(cls: type[Aggregate]) -> AggregateEntity[Any]:
    return AggregateEntity(cls, REGISTRY)


def test_an_event_of_the_annotation_needs_a_branch() -> None:
    with pytest.raises(ConfigurationError, match=r"lamp\.broken .* has no branch in evolve"):

        class Lamp1(Aggregate, name="lamp-1", topic="lamp"):
            def evolve(self, event: LampLit | LampBroken) -> None:
                match event:
                    case LampLit():
                        pass


def test_an_event_that_is_declared_needs_a_branch() -> None:
    with pytest.raises(ConfigurationError, match=r"lamp\.broken .* has no branch in evolve"):

        class Lamp2(Aggregate, name="lamp-2", topic="lamp", events=[LampLit, LampBroken]):
            def evolve(self, event: Any) -> None:
                if isinstance(event, LampLit):
                    return


def test_an_event_that_a_command_yields_needs_a_branch() -> None:
    with pytest.raises(ConfigurationError, match=r"lamp\.broken .* has no branch in evolve"):

        class Lamp3(Aggregate, name="lamp-3", topic="lamp"):
            def drop(self) -> Iterator[Event]:
                yield LampBroken()

            def evolve(self, event: Any) -> None:
                match event:
                    case LampLit():
                        pass


def test_an_event_of_another_topic() -> None:
    with pytest.raises(ConfigurationError, match=r"bulb\.sold .* of topic 'bulb', and its events must be of 'lamp'"):

        class Lamp4(Aggregate, name="lamp-4", topic="lamp"):
            def evolve(self, event: LampLit | BulbSold) -> None:
                match event:
                    case LampLit() | BulbSold():
                        pass


def test_an_event_without_a_name() -> None:
    with pytest.raises(UnknownEventError):

        class Lamp5(Aggregate, name="lamp-5", topic="lamp", events=[Unnamed]):
            def evolve(self, event: Any) -> None:
                match event:
                    case Unnamed():
                        pass


def test_a_name_twice() -> None:
    class Lamp6(Aggregate, name="lamp-6", topic="lamp"):
        def evolve(self, event: LampLit) -> None:
            assert isinstance(event, LampLit)

    with pytest.raises(ConfigurationError, match=r"name='lamp-6' is used by both .*Lamp6 and .*Lamp7"):

        class Lamp7(Aggregate, name="lamp-6", topic="lamp"):
            def evolve(self, event: LampLit) -> None:
                assert isinstance(event, LampLit)


def test_what_else_is_refused_at_import() -> None:
    with pytest.raises(ConfigurationError, match="field a default"):

        class Lamp8(Aggregate, name="lamp-8", topic="lamp"):
            colour: str

            def evolve(self, event: LampLit) -> None:
                assert isinstance(event, LampLit)

    with pytest.raises(ConfigurationError, match="no evolve"):

        class Lamp9(Aggregate, name="lamp-9", topic="lamp"):
            pass

    with pytest.raises(ConfigurationError, match="light is async"):

        class Lamp10(Aggregate, name="lamp-10", topic="lamp"):
            async def light(self) -> None:
                pass

            def evolve(self, event: LampLit) -> None:
                assert isinstance(event, LampLit)

    with pytest.raises(ConfigurationError, match="need name="):

        class Lamp11(Aggregate, topic="lamp"):
            pass

    with pytest.raises(ConfigurationError, match="snapshot_every=-1"):

        class Lamp12(Aggregate, name="lamp-12", topic="lamp", snapshot_every=-1):
            def evolve(self, event: LampLit) -> None:
                assert isinstance(event, LampLit)

    with pytest.raises(ConfigurationError, match="name="):

        class Lamp13(Aggregate, name="Lamp 13"):
            pass


def test_a_decider_is_refused_alike() -> None:
    def evolve(state: int, event: LampLit | LampBroken) -> int:
        return state + isinstance(event, LampLit)

    with pytest.raises(ConfigurationError, match=r"lamp\.broken .* has no branch"):
        DeciderEntity(Decider("lamps", 0, lambda state: [], evolve, topic="lamp"), REGISTRY)

    async def decide(state: int) -> None:
        pass

    with pytest.raises(ConfigurationError, match="plain functions"):
        Decider("lamps", 0, decide, evolve)  # type: ignore[arg-type]


def test_branches_are_found_wherever_they_stand() -> None:
    class Base(Aggregate):
        lit: int = 0

        def evolve(self, event: Any) -> None:
            if isinstance(event, events.LampLit):
                self.lit += 1

    class Lamp14(Base, name="lamp-14", topic="lamp", events=[LampLit, LampBroken]):
        def evolve(self, event: Any) -> None:
            self._break(event)
            super().evolve(event)

        def _break(self, event: Any) -> None:
            match event:
                case LampBroken():
                    self.lit = 0

    assert set(entity(Lamp14).kinds) >= {"lamp.broken"}
    table = {LampLit: 1}
    assert spoken_of([lambda event: table[type(event)]]) >= {LampLit}


def test_an_event_that_is_defined_below_is_found_at_first_use() -> None:
    class Lamp15(Aggregate, name="lamp-15", topic="lamp"):
        dimmed: int = 0

        def evolve(self, event: LampDimmed) -> None:  # type: ignore[name-defined]
            match event:
                case LampDimmed():  # type: ignore[name-defined]
                    self.dimmed += 1

    class LampDimmed(Event, name="lamp.dimmed"):
        pass

    assert set(entity(Lamp15).kinds) == {"lamp.dimmed"}


def test_what_a_fold_makes_of_events_it_does_not_know() -> None:
    class Lamp16(Aggregate, name="lamp-16", topic="lamp"):
        def evolve(self, event: LampLit) -> None:
            assert isinstance(event, LampLit)

    lamp = entity(Lamp16)
    stored = [(1, "lamp.lit", 1, b"{}", "a"), (2, "lamp.broken", 1, b"{}", "b"), (3, "eventmill.else", 1, b"{}", "c")]
    assert lamp.fold(lamp.new("x"), stored).version == 3
    with pytest.raises(DecodeError, match="no event type of this name is registered"):
        lamp.fold(lamp.new("x"), [(1, "lamp.stolen", 1, b"{}", "a")])
    with pytest.raises(DecodeError) as caught:
        lamp.fold(lamp.new("x"), [(7, "lamp.lit", 1, b'{"colour": 1}', "a")])
    assert "lamp-16 x" in caught.value.__notes__[0]
    assert "version 7" in caught.value.__notes__[0]


def versions(*, field: type = int, step: int = 1, snapshot_version: int = 1) -> str:
    namespace: dict[str, Any] = {}

    def evolve(self: Any, event: Any) -> None:
        if isinstance(event, LampLit):
            self.count += 1

    def evolve_otherwise(self: Any, event: Any) -> None:
        if isinstance(event, LampLit):
            self.count += 2

    namespace["evolve"] = evolve if step == 1 else evolve_otherwise
    namespace["__annotations__"] = {"count": field}
    namespace["count"] = field(0)
    namespace["__module__"] = __name__
    cls = type(Aggregate)(
        "Lamp17", (Aggregate,), namespace, name="lamp-17", topic="lamp", snapshot_every=1, snapshot_version=snapshot_version
    )  # fmt: skip
    return entity(cls).fingerprint()  # type: ignore[arg-type]


def test_the_fingerprint_goes_with_fields_code_and_version() -> None:
    assert versions() == versions()
    assert len({versions(), versions(field=float), versions(step=2), versions(snapshot_version=2)}) == 4


def test_a_state_that_json_cannot_hold_takes_no_snapshots() -> None:
    class Opaque:
        pass

    @dataclass(frozen=True)
    class Vault:
        content: Any = None

    def evolve(state: Vault, event: LampLit) -> Vault:
        return Vault(event) if isinstance(event, LampLit) else state

    decider = Decider("vault", Vault(Opaque()), lambda state: [], evolve, topic="lamp", snapshot_every=1)
    with pytest.raises(ConfigurationError, match="JSON can hold"):
        DeciderEntity(decider, REGISTRY)
