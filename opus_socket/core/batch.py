"""A batch: one call of the forwarding engine in progress.

Its one rule: whatever goes to one neighbor in one traffic class stays in the order in which it
came. Neighboring frames that go the same way are sent on together, in one piece: in place where
they came from a socket, by reference where they came in a parcel.
"""

from __future__ import annotations

from attrs import define, field

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.dispatch import Dispatch, Output, Piece, Tally
from opus_socket.core.parcel import Parcel
from opus_socket.core.runs import Run

_Collection = tuple[Output, list[Piece]]
"""An output, and its pieces when they are more than one parcel."""


@define(eq=False)
class Batch:
    """The input of a call, and what has come of it so far.

    Attributes:
        read: frames in a buffer that may be changed; nothing when they are in a parcel.
        parcel: frames that are not to be changed; None when they are in a buffer.
        arrived_from: the neighbor they came from; None for this member's own.
        now: seconds.
        dispatch: what has come of it.
        relayed, relayed_size: frames of others that were sent on, each once, and their bytes.
    """

    read: memoryview
    parcel: Parcel | None
    arrived_from: LogicalAddress | None
    now: float
    dispatch: Dispatch = field(factory=Dispatch)
    relayed: int = 0
    relayed_size: int = 0
    _group: list[_Collection] | None = field(default=None, init=False)
    _collections: dict[tuple[Contact, int], _Collection] = field(factory=dict, init=False)
    _group_contacts: tuple[Contact, ...] = field(default=(), init=False)
    _group_class: int = field(default=0, init=False)
    _contacts: tuple[Contact, ...] = field(default=(), init=False)
    _class: int = field(default=0, init=False)
    _start: int = field(default=0, init=False)
    _stop: int = field(default=0, init=False)
    _frames: int = field(default=0, init=False)
    _runs: list[Run] = field(factory=list, init=False)

    @property
    def buffer(self) -> memoryview:
        """The frames."""
        return self.read if self.parcel is None else self.parcel.view

    def send_run(self, contacts: tuple[Contact, ...], run: Run) -> None:
        """Send a run on to these contacts, its hop limits one less."""
        start, stop, frames = run.starts[0], run.stop, len(run.starts)
        if start == self._stop and contacts == self._contacts and run.traffic_class == self._class:
            self._frames += frames
        else:
            if self._frames:
                self._flush()
            self._contacts, self._class = contacts, run.traffic_class
            self._start, self._frames = start, frames
        self._stop = stop
        if self.parcel is None:
            run.put_hop_limit(self.read, run.hop_limit - 1)
        else:
            self._runs.append(run)

    def send(
        self,
        contacts: tuple[Contact, ...],
        traffic_class: int,
        pieces: Parcel | list[Piece],
        frames: int,
        size: int,
    ) -> None:
        """Send frames that are ready."""
        if self._frames:
            self._flush()
        if self._group is None or not (
            contacts is self._group_contacts and traffic_class == self._group_class
        ):
            self._choose(contacts, traffic_class)
        for output, collected in self._group or ():
            if not (output.frames or isinstance(pieces, list)):
                output.pieces = pieces
            else:
                if output.pieces is not collected:
                    collected += output.pieces
                    output.pieces = collected
                collected += pieces
            output.frames += frames
            output.size += size

    def _choose(self, contacts: tuple[Contact, ...], traffic_class: int) -> None:
        """Collect for these contacts from now on."""
        before, known = self._group, self._collections
        if before is not None and not known:
            # Most batches go one way, and need no look-up of contacts at all.
            known.update({(out.contact, out.traffic_class): (out, held) for out, held in before})
        self._group = group = []
        for contact in contacts:
            collection = known.get((contact, traffic_class)) if known else None
            if collection is None:
                pieces: list[Piece] = []
                collection = Output(contact, traffic_class, pieces, 0, 0), pieces
                self.dispatch.outputs.append(collection[0])
                if before is not None:
                    known[contact, traffic_class] = collection
            group.append(collection)
        self._group_contacts, self._group_class = contacts, traffic_class

    def finish(self, tally: Tally) -> Dispatch:
        """The dispatch, complete and counted."""
        if self._frames:
            self._flush()
        dispatch = self.dispatch
        if dispatch.outputs:
            tally.relayed_frames += self.relayed
            tally.relayed_bytes += self.relayed_size
            for output in dispatch.outputs:
                tally.transmitted_frames += output.frames
                tally.transmitted_bytes += output.size
        if dispatch.delivered:
            tally.delivered_frames += len(dispatch.delivered)
            tally.delivered_bytes += dispatch.delivered_size
        if dispatch.for_services:
            tally.service_frames += len(dispatch.for_services)
        tally.duplicates += dispatch.duplicates
        if dispatch.dropped:
            tally.dropped.update(dispatch.dropped)
        return dispatch

    def _flush(self) -> None:
        frames, self._frames = self._frames, 0
        start, stop, self._stop = self._start, self._stop, 0
        pieces: Parcel | list[Piece]
        if self.parcel is None:
            pieces = [self.read[start:stop]]
        else:
            runs, self._runs = self._runs, []
            pieces = self.parcel.onward(start, stop, runs)
        self.send(self._contacts, self._class, pieces, frames, stop - start)
