"""Parcels: frames that nobody changes, and what was found out about them.

Its one rule: what one has found out about a parcel, nobody else need find out. Members of one
process hand parcels to each other by reference. The first that takes one scans it; its runs, the
messages in them, and the parcel that goes on with hop limits one less are made once, for all that
take it. Bytes are written when somebody needs them: the application, or a wire.

A parcel lives as long as somebody has it in a queue or in hand, and keeps none alive that went on
from it. So what waits takes no more than its bound, however far others have passed it on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload
from weakref import ref

from attrs import define, field

from opus_socket.core.dispatch import Piece
from opus_socket.core.fragments import find_run
from opus_socket.core.message import Shape
from opus_socket.core.runs import Run


@define(eq=False, repr=False)
class Parcel(Sequence[Piece]):
    """Whole frames; as a sequence, the pieces of bytes that together are these frames.

    Args:
        size: bytes of all of them.
        pieces: in order.
    """

    size: int
    _pieces: Sequence[Piece]
    _base: memoryview | None = None
    _stale: Sequence[Run] = ()
    _terms: tuple[Shape, int] | None = None
    _runs: dict[int, Run] = field(factory=dict)
    _onward: ref[Parcel] | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.pieces)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self.pieces)

    @overload
    def __getitem__(self, index: int) -> Piece: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Piece]: ...

    def __getitem__(self, index: int | slice) -> Piece | Sequence[Piece]:
        return self.pieces[index]

    @property
    def pieces(self) -> Sequence[Piece]:
        """The bytes that it stands for."""
        if self._stale:
            self._write()
        return self._pieces

    @property
    def view(self) -> memoryview:
        """The same, behind one another."""
        if self._stale:
            self._write()
        return self._join()

    def run_at(self, offset: int, shape: Shape, maximum: int) -> Run | None:
        """The run at an offset; arguments and result as those of `find_run`. Whoever asks on the
        same terms as the first gets the same run.
        """
        terms = self._terms
        if terms is None:
            self._terms = terms = shape, maximum
        if terms[0] is not shape or terms[1] != maximum:
            return find_run(self.view, offset, shape, maximum)
        run = self._runs.get(offset)
        if run is None:
            run = find_run(self.view, offset, shape, maximum)
            if run is not None:
                self._runs[offset] = run
        return run

    def onward(self, start: int, stop: int, runs: Sequence[Run]) -> Parcel:
        """The frames between two offsets, with hop limits one less.

        Args:
            start, stop: where they are.
            runs: all of them, in order; their hop limits are above 1.
        """
        if stop - start < self.size:
            # A part that waits must not keep the rest.
            return self._pass_on(memoryview(bytes(self._join()[start:stop])), start, runs)
        parcel = None if self._onward is None else self._onward()
        if parcel is None:
            parcel = self._pass_on(self._join(), 0, runs)
            self._onward = ref(parcel)
        return parcel

    def _pass_on(self, base: memoryview, start: int, runs: Sequence[Run]) -> Parcel:
        stale, known = [], {}
        for run in runs:
            moved = run.onward(start)
            stale.append(moved)
            # What is left of a run is scanned again: it may be one run with what follows.
            if self._runs.get(run.starts[0]) is run:
                known[moved.starts[0]] = moved
        return Parcel(len(base), (), base, stale, self._terms, known)

    def _join(self) -> memoryview:
        """The frames behind one another, perhaps with hop limits that are still to be written."""
        if self._base is None:
            data = b"".join(self._pieces)
            self._base = memoryview(data)
            self._pieces = (data,)
        return self._base

    def _write(self) -> None:
        """Write the hop limits."""
        data = bytearray(self._join())
        for run in self._stale:
            run.put_hop_limit(data, run.hop_limit)
        self._base = memoryview(data).toreadonly()
        self._pieces, self._stale = (self._base,), ()


Frames = memoryview | Parcel
"""Overlay messages behind one another: in a buffer that may be changed, where the last may be a
part of one, or in a parcel.
"""
