"""The machines' common ground: everything an overlay does, with no I/O, clock or global chance.

Two drivers run `OverlayCore`, which holds all of it behind one set of inputs: the Trio host and the
simulator. Nothing here imports Trio, sockets or clocks.

What machines speak of:

- `addresses`: logical addresses, endpoints, contacts, overlay IDs.
- `effects`, `events`: what a step may ask for, and what an application is told.
- `node`, `service`: the interfaces of protocols and of services; `hold`: messages that wait for
  others, to be merged.
- `texts`: addresses as people write them; `requests`: what callers hand in, checked before anything
  is done.
- `settings`, `setting_types`, `key_attributes`: values with unit, meaning and bounds, and those
  that all members must agree on.

What goes over the wire:

- `wire`: protocol messages as bytes, and back. `datagram`: what stands before them.
- `message`, `extensions`: overlay messages, and their extension headers.

How members find and keep each other:

- `contacts`: the contact finder. Its asking side: `search`, `correspondence`; its answering side:
  `answering`, `cookies`; what they say: `rendezvous_messages`.
- `neighborhood`, `timers`: who is heard, named deadlines.
- `measurement`, `inquiries`: how good the way to a contact is, and to any member; `limiter`: how
  often somebody is answered.

How overlay messages travel:

- `engine`: the forwarding engine. It takes `runs` of frames, makes its own (`origin`), asks
  `routes` and `duplicates`, reports `losses`, and returns a `dispatch`, which a `batch` gathers.
  `parcel`: frames that members of a process hand to each other. `delivery`: what becomes of
  messages that are for this member.
- `fragments`, `reassembly`: messages that are longer than a frame, cut up and whole again.
- `serving`: the services of a membership, and the application's handler.
- `attendant`: how the ways are, and when they break. It joins `inquiries` to `link_watch`, which
  looks after the links to neighbors, and `sessions`, which looks after what passes over them.
- `overlay`: `OverlayCore`, one membership whole. `core_values`: what it is given, and tells.
- `buckets`, `shaper`: bandwidth that drivers hold a member to, and whose turn it is.
"""
