"""Adapters: what carries messages between members. Trio lives from here on upward.

A node adapter carries protocol messages (UDP, or TCP where UDP is shut), a socket adapter carries
overlay messages (TCP, UDP, or a hand-over inside the process). Both are driven by the host's one
loop: they never wait, they are called when their sockets are ready.

- `base`: the two small interfaces between a host and its adapters.
- `poller`: which sockets are ready, as one thing to wait for.
- `flow`: bounded outputs, their gates and what happens when they are full.
- `udp`: datagrams, the multicast group, and overlay messages over UDP.
- `address_cache`: who sends from where, for all UDP sockets of a host.
- `tcp`, `records`, `record_reader`, `record_writer`: a connection, what its bytes are made of, and
  how they are read and written.
- `outgoing`, `backlog`: what waits to be written on a connection, and what came on it for outputs
  that are closed; a full output pauses its lane, a route in one traffic class, and no other.
- `signals`: what the other end of a connection is to be told of lanes.
- `turns`: in what order and ratio those go on who wait.
- `pool`, `capacity`: the one connection of each pair of endpoints, and how many there may be.
- `emulation`: what a member holds back that is held to a bandwidth.
- `inbox`: what waits for the application.
- `local`: hand-over between members of one process.
- `memory`: what this process keeps of what it has freed.
- `seal`: what protects bytes on their way.
"""
