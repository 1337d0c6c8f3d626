"""The machines' common ground: everything an overlay does, with no I/O, clock or global chance.

Addresses and contacts, messages and their codec, the interfaces of nodes and services, the
neighborhood table, timers, the contact finder, measurement, the forwarding engine, and
`OverlayCore`, which holds them together behind one set of inputs. Two drivers run it: the Trio
host and the simulator. Nothing here imports Trio, sockets or clocks.
"""
