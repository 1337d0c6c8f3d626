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

from opus_socket.core.fragments import find_run
from opus_socket.core.message import Shape
from opus_socket.core.runs import Run


@define(eq=False, repr=False)
class Parcel(Sequence[bytes]):
    """Whole frames; as a sequence, the pieces of bytes that together are these frames.

    Args:
        size: bytes of all of them.
        pieces: in order.
    """

    size: int
    _pieces: Sequence[bytes]
    _base: memoryview | None = None
    _stale: Sequence[Run] = ()
    _runs: dict[int, Run] = field(factory=dict, init=False)
    _terms: tuple[Shape, int] | None = field(default=None, init=False)
    _onward: dict[tuple[int, int], ref[Parcel]] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.pieces)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self.pieces[index]

    @property
    def pieces(self) -> Sequence[bytes]:
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
        known = self._onward.get((start, stop))
        parcel = None if known is None else known()
        if parcel is None:
            parcel = self._pass_on(start, stop, runs)
            self._onward[start, stop] = ref(parcel)
        return parcel

    def _pass_on(self, start: int, stop: int, runs: Sequence[Run]) -> Parcel:
        base = self._join()
        if stop - start < self.size:
            # A part that waits must not keep all the rest.
            base = memoryview(bytes(base[start:stop]))
        moved = [run.onward(start) for run in runs]
        parcel = Parcel(stop - start, (), base, moved)
        parcel._terms = self._terms
        parcel._runs = {
            new.starts[0]: new
            for old, new in zip(runs, moved, strict=True)
            # What is left of a run is scanned again: it may be the same run as the next one.
            if self._runs.get(old.starts[0]) is old
        }
        return parcel

    def _join(self) -> memoryview:
        """The frames behind one another, perhaps with hop limits that are still to be written."""
        base = self._base
        if base is None:
            self._pieces = (b"".join(self._pieces),)
            base = self._base = memoryview(self._pieces[0])
        return base

    def _write(self) -> None:
        """Write the hop limits."""
        data = bytearray(self._join())
        for run in self._stale:
            run.put_hop_limit(data, run.hop_limit)
        self._pieces, self._stale = (bytes(data),), ()
        self._base = memoryview(self._pieces[0])


Frames = memoryview | Parcel
"""Overlay messages behind one another: in a buffer that may be changed, where the last may be a
part of one, or in a parcel.
"""
