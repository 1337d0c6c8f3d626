"""`python -m opus_socket.cli`: the command where its script is not on the path."""

from __future__ import annotations

from opus_socket.cli import main

main(prog_name="opus-socket")
