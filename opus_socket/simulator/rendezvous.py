"""A rendezvous server on the virtual clock.

Its one rule: it is the machine that `opus-socket rendezvous` runs, driven like a member.
"""

from __future__ import annotations

from math import inf

from attrs import define, field

from opus_socket.core.addresses import ANY_INDEX, Contact
from opus_socket.core.effects import Kind
from opus_socket.errors import LocalProtocolError
from opus_socket.rendezvous.server import RendezvousServer, ServerEffects, ServerSettings
from opus_socket.simulator.chance import generator
from opus_socket.simulator.member import endpoint
from opus_socket.simulator.underlay import Underlay, Way


@define(eq=False, repr=False)
class SimulatedServer:
    """A rendezvous server of a simulation; up from the start.

    Attributes:
        number: its number in the network, below 0.
        contact: how members are told of it (`FinderSettings.servers`).
        seen_as, ways, in_group: see `Station`.
    """

    number: int
    _underlay: Underlay
    _seed: int
    contact: Contact = field(init=False)
    seen_as: Contact = field(init=False)
    ways: dict[bytes, Way] = field(factory=dict, init=False)
    in_group: bool = field(default=False, init=False)
    _server: RendezvousServer | None = field(default=None, init=False)
    _lives: int = field(default=0, init=False)
    _wake_at: float = field(default=inf, init=False)

    def __attrs_post_init__(self) -> None:
        place = (endpoint(self.number),)
        self.contact = Contact(None, 0, ANY_INDEX, place)
        self.seen_as = Contact(None, 0, 0, place)
        self.start()

    @property
    def machine(self) -> RendezvousServer:
        """The machine of its present life.

        Raises:
            LocalProtocolError: it is down.
        """
        if self._server is None:
            raise LocalProtocolError(f"server {self.number} is down")
        return self._server

    def crash(self) -> None:
        """Be gone, with everything that it knew."""
        self._server = None
        self._wake_at = inf

    def start(self) -> None:
        """Begin to serve, knowing nobody.

        Raises:
            LocalProtocolError: it is up already.
        """
        if self._server is not None:
            raise LocalProtocolError(f"server {self.number} is up already")
        self._lives += 1
        rng = generator(self._seed, "server", self.number, self._lives)
        self._server = RendezvousServer(rng, rng.randbytes(32), ServerSettings())

    def takes(self, size: int) -> bool:
        """Whether it is up."""
        return self._server is not None

    def arrive(self, kind: Kind, body: bytes, sender: Contact) -> None:
        """A packet came."""
        if kind is Kind.RENDEZVOUS:
            self._perform(self.machine.receive(body, sender, self._underlay.schedule.now))

    def _wake(self) -> None:
        server, now = self._server, self._underlay.schedule.now
        if server is None or now != self._wake_at:
            return  # Another entry of the schedule stands for its next deadline.
        self._wake_at = inf
        self._perform(server.wake(now) if server.next_deadline <= now else ())

    def _perform(self, effects: ServerEffects) -> None:
        for effect in effects:
            self._underlay.send(self, effect.to, effect.kind, effect.body)
        schedule = self._underlay.schedule
        if self.machine.next_deadline < self._wake_at:
            self._wake_at = max(self.machine.next_deadline, schedule.now)
            schedule.timer(self._wake_at, self._wake)
