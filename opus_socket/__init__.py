"""Overlay sockets for Trio: join a named overlay, send to all, send to one, receive.

The one rule: every protocol is a machine without I/O, clock or chance of its own, and only a
driver holds machines. The rooms, from the bottom up:

- `errors`: the whole error tree.
- `core`: the machines' common ground: addresses, messages, wire, nodes, engine.
- `config` and `registry`: hypercast.toml as typed values; protocols found by entry point.
- `adapters` and `driver`: Trio; what carries packets, and the host that runs machines.
- `overlay_socket`: what applications hold.
- `rendezvous`: the server where members find each other.
- `simulator`: the same machines on a virtual clock and a modelled network.
- `cli`: the command `opus-socket`.
"""
