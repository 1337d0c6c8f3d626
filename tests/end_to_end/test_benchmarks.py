"""The benchmarks run, check what they measure, and print what others rely on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from end_to_end.processes import Running

Launch = Callable[..., Running]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CONTRACT = {
    "workload": str,
    "size": int,
    "members": int,
    "value": float,
    "unit": str,
    "runs": int,
    "median": float,
    "min": float,
    "max": float,
    "beside": str,
    "beside_median": float,
    "beside_min": float,
    "beside_max": float,
    "ratio": float,
}


def measure(launch: Launch, *arguments: str) -> list[dict[str, object]]:
    """What a benchmark printed, one object a measurement."""
    program, *options = arguments
    running = launch(sys.executable, str(BENCHMARKS / program), "--json", *options)
    assert running.ends() == 0, running.err.all
    lines = [json.loads(line) for line in running.out.all]
    found = [line for line in lines if line.keys() != {"skipped", "reason"}]
    for measurement in found:
        types = {key: type(value) for key, value in measurement.items()}
        assert types.pop("note", str) is str
        assert types == CONTRACT
        assert measurement["min"] <= measurement["median"] <= measurement["max"]
        assert measurement["value"] == measurement["median"]
        assert measurement["beside_median"] > 0
    return found


@pytest.mark.parametrize(("option", "name"), [((), "join"), (("--handover",), "join_handover")])
def test_joining_is_measured(launch: Launch, option: tuple[str, ...], name: str) -> None:
    found = measure(launch, "join.py", "--members", "12", "--runs", "2", *option)
    what = ["", "_exact", "_cpu", "_heard", "_messages", "_messages_all"]
    assert [each["workload"] for each in found] == [name + part for part in what]
    assert all((each["members"], each["runs"]) == (12, 2) for each in found)
    by_name = {each["workload"]: each["value"] for each in found}
    assert by_name[name] <= by_name[f"{name}_exact"] <= by_name[f"{name}_heard"]  # type: ignore[operator]
    # A cookie and the request proper, a Hello: nobody joins for less.
    assert by_name[f"{name}_messages"] > 3  # type: ignore[operator]


@pytest.mark.parametrize(
    "workloads",
    [
        {"point_to_point": 2, "two_processes": 2, "fan_out": 9},
        {"chain": 32, "single": 2, "handover": 2},
    ],
)
def test_throughput_is_measured_for_each_workload(
    launch: Launch, workloads: dict[str, int]
) -> None:
    options = ("--size", "1024", "--runs", "1", "--seconds", "0.01", "--workload", *workloads)
    found = measure(launch, "throughput.py", *options)
    assert [(each["workload"], each["members"], each["size"]) for each in found] == [
        (name, members, 1024) for name, members in workloads.items()
    ]
    assert all(each["unit"] == "k messages/s" for each in found)


def test_fan_out_is_measured_over_connections_and_by_reference(launch: Launch) -> None:
    options = ("--receivers", "12", "--size", "1024", "--runs", "1", "--seconds", "0.01")
    found = measure(launch, "fan_out.py", *options)
    assert [(each["workload"], each["beside"], each["members"]) for each in found] == [
        ("fan_out", "bare Trio", 13),
        ("fan_out_each", "goal", 13),
        ("fan_out_handover", "goal", 13),
    ]
    # So many thousand messages a second at all twelve are so many Mbit/s at each.
    deliveries, each = (measurement["value"] for measurement in found[:2])
    assert each == pytest.approx(deliveries * 1024 * 8 / 12 / 1000, rel=0.01)  # type: ignore[operator]


@pytest.mark.parametrize(("way", "with_cpu"), [("", True), ("_apart", False), ("_handover", True)])
def test_a_chain_is_measured_in_one_process_and_in_two(
    launch: Launch, way: str, with_cpu: bool
) -> None:
    workloads = [f"unicast{way}", f"multicast{way}"]
    options = ("--nodes", "3", "--runs", "1", "--seconds", "0.01", "--workload", *workloads)
    found = measure(launch, "chain.py", *options)
    what = ["", "_cpu"] if with_cpu else [""]
    assert [each["workload"] for each in found] == [
        workload + part for workload in workloads for part in what
    ]
    assert {each["size"] for each in found} == {5120}


def test_a_slow_receiver_is_measured_beside_none(launch: Launch) -> None:
    options = ("--policy", "drop", "--runs", "1", "--seconds", "0.1")
    found = measure(launch, "slow_receiver.py", *options)
    names = ["slow_drop", "slow_drop_kept", "slow_drop_memory"]
    assert [(each["workload"], each["members"]) for each in found] == [(name, 17) for name in names]
    rate, kept = found[0], found[1]
    share = 100 * rate["value"] / rate["beside_median"]  # type: ignore[operator]
    assert kept["value"] == pytest.approx(share, rel=0.01)


def test_all_may_send_to_all(launch: Launch) -> None:
    found = measure(launch, "all_to_all.py", "--members", "4", "--seconds", "0.2")
    what = ["", "_delivered", "_silence", "_memory"]
    assert [each["workload"] for each in found] == [f"all_to_all{part}" for part in what]
    assert 0 < found[1]["value"] <= 100  # type: ignore[operator]


def test_idle_members_are_measured_in_each_way_of_hosting_them(launch: Launch) -> None:
    options = ("--members", "8", "--seconds", "0.1", "--runs", "1", "--settle", "0")
    found = measure(launch, "idle.py", *options)
    cases = ["idle_virtual", "idle_virtual_5s", "idle_handover", "idle_own"]
    names = [name for case in cases for name in (case, f"{case}_traffic")]
    assert [each["workload"] for each in found] == names


def test_round_trips_are_measured_beside_a_raw_connection(launch: Launch) -> None:
    found = measure(launch, "latency.py", "--runs", "1", "--trips", "20")
    raw = [each for each in found if each["beside"] == "raw Trio"]
    assert [(each["workload"], each["size"], each["unit"]) for each in raw] == [
        ("round_trip", 64, "us"),
        ("round_trip_p99", 64, "us"),
    ]
    assert raw[0]["value"] <= raw[1]["value"]  # type: ignore[operator]


def test_each_peer_is_measured_or_skipped_with_a_reason(launch: Launch) -> None:
    options = ("--workload", "point_to_point", "--size", "64", "--runs", "1", "--seconds", "0.01")
    program = str(BENCHMARKS / "throughput.py")
    running = launch(sys.executable, program, "--json", "--peers", *options)
    assert running.ends() == 0, running.err.all
    lines = [json.loads(line) for line in running.out.all]
    measured = [line["beside"] for line in lines if line.get("note")]
    skipped = [line["skipped"] for line in lines if line.get("reason")]
    assert sorted(measured + skipped) == ["NATS", "Zenoh", "ZeroMQ", "py-libp2p"]


def test_people_get_a_table(launch: Launch) -> None:
    options = ("--workload", "point_to_point", "--size", "64", "--runs", "1", "--seconds", "0.01")
    running = launch(sys.executable, str(BENCHMARKS / "throughput.py"), *options)
    running.prints(r"^workload +size +members +median +min +max +unit +beside it +median +ratio")
    running.prints(r"^point_to_point +64 +2 .* k messages/s +bare Trio +[\d,.]+ +\d+\.\d\d$")
    assert running.ends() == 0


def test_all_of_them_can_be_told_to_be_quick(launch: Launch) -> None:
    running = launch(sys.executable, str(BENCHMARKS / "all.py"), "--help")
    assert running.ends() == 0
    running.prints(r"--quick +once each, short and small")


def test_an_overlay_that_does_not_form_fails_with_what_is_wrong(launch: Launch) -> None:
    program = str(BENCHMARKS / "join.py")
    running = launch(sys.executable, program, "--members", "200", "--timeout", "0.01")
    running.logs(r"failed: after 0.01 s \d+ of 200 members have joined")
    assert running.ends() == 1
    assert running.out.all == []


def test_emulated_bandwidth_is_measured_in_every_direction(launch: Launch) -> None:
    options = ("--rate", "200000", "1000000", "--runs", "1", "--seconds", "0.1")
    found = measure(launch, "emulation.py", *options)
    kinds = [f"emulated_{kind}" for kind in ("out", "in", "total", "link")]
    assert [(each["workload"], each["beside_median"]) for each in found] == [
        *((kind, limit) for kind in kinds for limit in (200.0, 1000.0)),
        ("emulated_control", 50.0),
    ]
