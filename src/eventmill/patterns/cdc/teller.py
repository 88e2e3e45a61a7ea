"""One pass over a source's entries: what is new of them becomes messages, and the progress moves with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from eventmill.core.changes import (
    Begin,
    Chunk,
    Commit,
    Emitted,
    Entry,
    Key,
    Marked,
    Passed,
    Reshaped,
    Row,
    RowChange,
    Shape,
    Truncated,
)
from eventmill.core.errors import BackendError
from eventmill.core.message import Message
from eventmill.patterns.cdc.messages import Translator
from eventmill.patterns.cdc.progress import Progress
from eventmill.patterns.cdc.window import Recent, Window

Fill = Callable[[Shape, Key, Sequence[str]], Awaitable[Row | None]]
"""Asks the source for present values of some columns of a row."""


class Teller:
    """Takes entries in the stream's order; `messages` and `progress` belong together, and are committed together.

    What the progress says was told already is passed over: a source begins a transaction again from its beginning.
    """

    def __init__(self, translator: Translator, progress: Progress, shapes: dict[str, Shape], fill: Fill) -> None:
        self.progress = progress
        self.shapes = shapes
        self._stored = dict(shapes)
        self.messages: list[Message] = []
        self.windows: list[Window] = []
        self.chunks: dict[str, tuple[Window, Chunk]] = {}
        self.copied: Callable[[], None] = lambda: None
        self.recent = Recent(progress.recent)
        self.moved = False
        """Whether the progress has moved since the last `take_messages`."""
        self.reshaped = False
        self.copied_all = False
        """Whether a table's snapshot was completed since then."""
        self._translator = translator
        self._fill = fill
        self._begin: Begin | None = None
        self._passing = False
        self._count = 0
        self._skip = 0
        self._held: RowChange | Truncated | None = None
        self._whole = False

    def take_messages(self) -> list[Message]:
        """What was made since the last call, for one commit with the progress as it is now."""
        messages, self.messages = self.messages, []
        self.moved = self.reshaped = self.copied_all = False
        return messages

    @property
    def within(self) -> bool:
        """Whether a transaction is under way."""
        return self._begin is not None

    async def tell(self, entry: Entry, now: int) -> None:
        """Take one entry. now: microseconds."""
        if type(entry) is RowChange:
            if not self._passing:
                await self._counted(entry)
        elif type(entry) is Begin:
            self._started(entry)
        elif type(entry) is Commit:
            await self._ended(entry)
        elif type(entry) is Truncated:
            if not self._passing:
                await self._counted(entry)
        elif type(entry) is Passed:
            if entry.position > self.progress.position and self._begin is None:
                self.progress.position = entry.position
                self.moved = True
        elif type(entry) is Marked:
            if not self._passing:
                await self._merged(entry.mark)
        elif type(entry) is Reshaped:
            await self._reshape(entry)
        elif type(entry) is Emitted:
            await self._emit(entry, now)

    def _started(self, entry: Begin) -> None:
        progress = self.progress
        self._begin = entry
        self._passing = entry.position < progress.position
        self._count = 0
        self._skip = progress.told if progress.within == entry.position else 0
        self._translator.begin(entry.position, entry.transaction, entry.at)
        if self.progress.copying and not self._passing:
            self.recent.told(entry.transaction)

    async def _ended(self, entry: Commit) -> None:
        if not self._passing:
            await self._release(last=True)
            self.progress.position = entry.position
            self.progress.within = None
            self.progress.told = 0
            self.moved = True
        self._begin = None
        self._passing = False

    async def _counted(self, entry: RowChange | Truncated) -> None:
        """Hold each change until it is known whether it is the transaction's last."""
        whole = False
        for window in self.windows:
            if window.table == entry.table:
                whole |= self._note(window, entry)
        if self._held is not None:
            await self._release(last=False)
        self._held = entry
        self._whole = whole

    def _note(self, window: Window, entry: RowChange | Truncated) -> bool:
        """Whether a row of the window's chunk may be left out for this change."""
        assert self._begin is not None
        if isinstance(entry, Truncated):
            window.truncated(self._begin.transaction)
            return False
        if entry.moved_from is not None:
            window.changed(entry.moved_from, self._begin.transaction)
        return window.changed(entry.key, self._begin.transaction)

    async def _release(self, *, last: bool) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        self._count += 1
        if self._count <= self._skip:
            return
        shape = self.shapes[held.table]
        if isinstance(held, Truncated):
            self.messages += self._translator.truncated(held.table, self._count, last=last)
        else:
            if held.unchanged and (held.moved_from is not None or self._whole):
                # The row under its new key is new to everybody, and must be whole. So must one whose chunk is being read:
                # the chunk's row will be left out for this one, although nobody has been told its large values yet.
                found = await self._fill(shape, held.key, held.unchanged)
                if held.after is not None and found is not None:
                    held.after.update(found)
                    held.unchanged = tuple([name for name in held.unchanged if name not in found])
            self.messages += self._translator.row(held, shape, self._count, last=last)
        self._advanced()

    def _advanced(self) -> None:
        assert self._begin is not None
        self.progress.within = self._begin.position
        self.progress.told = self._count
        self.moved = True

    async def _emit(self, entry: Emitted, now: int) -> None:
        if entry.position is None:
            if not self._passing:
                await self._release(last=False)
                self._count += 1
                if self._count > self._skip:
                    self.messages.append(self._translator.emitted(entry, self._count, now))
                    self._advanced()
        elif entry.position >= self.progress.position:
            self.messages.append(self._translator.emitted(entry, 0, now))
            self.progress.position = entry.position + 1
            self.moved = True

    async def _reshape(self, entry: Reshaped) -> None:
        """Told before the first row of the new shape. A transaction that is begun again shows its shapes again."""
        table = entry.shape.table
        if self._passing or self.shapes.get(table) == entry.shape:
            return
        await self._release(last=False)
        self.shapes[table] = entry.shape
        for window in self.windows:
            window.reshaped |= window.table == table
        again = self._count < self._skip or (self._count == self._skip > 0 and self._stored.get(table) == entry.shape)
        if not again:
            self.messages += self._translator.reshaped(entry, self._count + 1)
            self.reshaped = self.moved = True

    async def _merged(self, mark: str) -> None:
        """Tell the rows of a chunk whose mark the stream has come to."""
        found = self.chunks.pop(mark, None)
        if found is None:
            return  # of an earlier life
        window, chunk = found
        if chunk.shape != self.shapes[window.table]:
            if window.reshaped:
                raise BackendError(
                    f"table {chunk.shape.name} was altered while it was copied: some rows are read again"
                )
            await self._reshape(Reshaped(chunk.shape, self.shapes[window.table]))
        self.windows.remove(window)
        shape = self.shapes[window.table]
        count = 0
        for number, (key, row) in enumerate(window.rows(chunk)):
            self.messages.append(self._translator.snapshot(shape, key, row, mark, number))
            count += 1
        copied = self.progress.tables[window.table]
        copied.rows += count
        copied.after = chunk.last or copied.after
        if chunk.final:
            copied.state = "done"
            self.copied_all = True
        self.recent.forget(chunk.view)
        self.moved = True
        self.copied()
