"""`opus-socket demo`: an overlay of real processes forms itself and carries a file to everybody.

Its one rule: the parent orders, the members do. They talk in lines of JSON over pipes; the overlay
itself runs on real sockets, as it would between machines.

- `verb`: the command and its options.
- `run`: the demonstration, from the rendezvous server to the digests.
- `crew`: the member processes; `member`: what each of them does.
- `words`: what parent and members say to each other.
- `transfer`: a file in messages, and back.
- `show`, `picture`: progress, the summary, and the overlay as an SVG picture.
"""

from __future__ import annotations

from opus_socket.cli.demo.verb import command

__all__ = ["command"]
