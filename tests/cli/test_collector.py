"""Python's collector of cyclic garbage is held back while it has to be, and as before then."""

from __future__ import annotations

import gc

import pytest

from opus_socket.cli import host as host_module
from opus_socket.cli import main
from opus_socket.cli.collector import MANY, SELDOM, spared_collector, without_collector


@pytest.mark.parametrize("enabled", [True, False])
def test_without_it_until_an_error_ends_that(enabled: bool) -> None:
    def work() -> None:
        with without_collector():
            seen.append(gc.isenabled())
            raise ZeroDivisionError

    seen: list[bool] = []
    if not enabled:
        gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            work()
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        gc.enable()


def test_it_looks_seldom_until_an_error_ends_that() -> None:
    def work() -> None:
        with spared_collector():
            seen.append(gc.get_threshold()[0])
            raise ZeroDivisionError

    seen: list[int] = []
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError):
        work()
    assert (seen, gc.get_threshold()) == ([SELDOM], before)
    assert gc.isenabled()


@pytest.mark.parametrize(("members", "spared"), [(MANY - 1, False), (MANY, True)])
def test_a_host_of_many_spares_it(
    monkeypatch: pytest.MonkeyPatch, members: int, spared: bool
) -> None:
    seen: list[bool] = []

    def look(*_: object, **__: object) -> int:
        seen.append(gc.get_threshold()[0] == SELDOM)
        return 0

    monkeypatch.setattr(host_module, "run_until_signal", look)
    with pytest.raises(SystemExit):
        main(["host", "--overlay", "lab", "--members", str(members)])
    assert seen == [spared]
