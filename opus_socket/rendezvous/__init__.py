"""The rendezvous server: the place where the members of an overlay find each other.

`server` is the machine, blind to every protocol; `table` the overlays that it remembers, and whose
they are; `cache` the members that it remembers of one; `admission` who may join at the same time;
`serve` its Trio process.
"""
