"""A host may be closed at any moment of its loop's turn."""

from __future__ import annotations

import pytest
import trio

from opus_socket import OverlayConfig, loop, open_host


@pytest.mark.parametrize("checkpoints", range(12))
async def test_closing_in_the_middle_of_a_turn_ends_the_loop(
    monkeypatch: pytest.MonkeyPatch, server: str, overlay: str, checkpoints: int
) -> None:
    monkeypatch.setattr(loop, "TURN_BUDGET", 0.0)  # a checkpoint after each socket
    config = OverlayConfig(
        overlay_id=overlay,
        socket={"local_handover": False},
        node_adapter={"listen": "127.0.0.1:0", "socket_per_node": True},
        rendezvous={"server": server},
    )
    async with open_host() as host:
        members = [await host.open_socket(config) for _ in range(6)]
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(member.join)
        await members[0].send_batch([bytes(1000)] * 50)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        host.close()
        with pytest.raises(trio.ClosedResourceError):
            await members[0].send_to_all(b"too late")
