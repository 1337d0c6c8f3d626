"""`opus-socket simulate`: its contract, its dump against other tools, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from click.testing import CliRunner, Result
from delaunay_oracle import delaunay
from scipy.spatial import Delaunay

from opus_socket.cli import main

FIELDS = {
    "protocol",
    "parameters",
    "nodes",
    "seed",
    "legitimate",
    "time_to_legitimate_s",
    "messages_per_join",
    "rendezvous_messages_per_join",
    "events",
    "events_per_s",
    "wall_s",
    "trace_sha256",
    "root",
    "stretch",
    "stress",
    "cost",
}


def simulate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def report(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def graph(dump: dict[str, Any]) -> dict[tuple[int, int], frozenset[tuple[int, int]]]:
    """The neighbors of each living member, by coordinates."""
    place = {member["id"]: tuple(member["address"]) for member in dump["members"]}
    return {
        place[member["id"]]: frozenset(place[number] for number in member["neighbors"])
        for member in dump["members"]
        if member["alive"]
    }


def scipy_graph(
    points: list[tuple[int, int]],
) -> dict[tuple[int, int], frozenset[tuple[int, int]]]:
    found: dict[tuple[int, int], set[tuple[int, int]]] = {point: set() for point in points}
    for corners in Delaunay(numpy.array(points, float)).simplices:
        for a in corners:
            found[points[a]] |= {points[b] for b in corners if b != a}
    return {point: frozenset(neighbors) for point, neighbors in found.items()}


def test_the_report_is_one_object_with_the_promised_fields() -> None:
    result = simulate("--nodes", "30", "--seed", "7", "--json")
    fields = report(result)
    assert set(fields) == FIELDS
    assert (fields["protocol"], fields["nodes"], fields["seed"]) == ("delaunay", 30, 7)
    assert fields["legitimate"] is True
    assert 0 < fields["time_to_legitimate_s"] < 600
    assert fields["parameters"]["heartbeat"] == 1.0
    assert fields["messages_per_join"] > 0
    for name in ("stretch", "stress", "cost"):
        figures = fields[name]
        assert 0 < figures["mean"] <= figures["max"]
        assert figures["p90"] <= figures["max"]
    assert result.stderr == ""


def test_without_json_it_is_told_to_people() -> None:
    result = simulate("--nodes", "5")
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert set(lines) == FIELDS - {"parameters"}
    assert next(iter(lines)) == "protocol"
    assert lines["legitimate"].startswith("yes: ")
    assert lines["nodes"] == "5 members"
    assert "from the last join until" in lines["time_to_legitimate_s"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--crash", "0.4"], {"time_to_legitimate_s": "virtual seconds, from the crash until"}),
        (
            ["--crash", "0.4"],
            {"nodes": "10 members, of whom 6 survived", "legitimate": "right (6 members)"},
        ),
        (
            ["--crash", "0.1", "--partition", "9"],
            {"time_to_legitimate_s": "from the end of the partition of 9 s until"},
        ),
        (
            ["--nodes", "1"],
            {"legitimate": "right (1 member)", "stretch": "mean 0.000, p90 0.000, max 0.000"},
        ),
        (
            ["--loss", "1", "--crash", "0.4"],
            {
                "nodes": "10 members",
                "legitimate": "no: ",
                "time_to_legitimate_s": "- (it never was)",
                "messages_per_join": "or else to the end",
            },
        ),
    ],
)
def test_people_are_told_since_when_and_of_whom(options: list[str], words: dict[str, str]) -> None:
    result = simulate("--nodes", "10", *options)
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    for name, said in words.items():
        assert said in lines[name]


def test_people_and_programs_are_told_the_same_figures() -> None:
    arguments = ("--nodes", "12", "--seed", "5", "--crash", "0.25")
    fields = report(simulate(*arguments, "--json"))
    lines = dict(line.split(maxsplit=1) for line in simulate(*arguments).stdout.splitlines())
    for name in ("time_to_legitimate_s", "messages_per_join", "rendezvous_messages_per_join"):
        assert lines[name].startswith(f"{fields[name]:.3f} ")
    for name in ("stretch", "stress", "cost"):
        mean, p90, most = (fields[name][part] for part in ("mean", "p90", "max"))
        assert lines[name].startswith(f"mean {mean:.3f}, p90 {p90:.3f}, max {most:.3f} (")
    assert lines["trace_sha256"].startswith(fields["trace_sha256"])
    assert f"member {fields['root']}," in lines["root"]


@pytest.mark.parametrize(
    "options", [[], ["--loss", "0.1", "--jitter", "10"], ["--join-interval", "0"]]
)
def test_the_dump_equals_another_tools_triangulation(tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "g.json"
    fields = report(simulate("--nodes", "120", "--seed", "7", "--json", "--dump", path, *options))
    dump = load(path)
    tables = graph(dump)
    assert tables == scipy_graph(list(tables))
    assert len(dump["members"]) == 120
    assert dump["seed"] == 7
    assert all(member["alive"] and member["stable"] for member in dump["members"])
    assert len({member["endpoint"] for member in dump["members"]}) == 120
    delays = numpy.array(dump["delay_ms"])
    assert delays.shape == (120, 120)
    assert (numpy.diag(delays) == 0).all()
    check_tree(dump, fields, delays)


@pytest.mark.deep
@pytest.mark.parametrize(
    "options",
    [
        ["--nodes", "1000"],
        ["--nodes", "1000", "--loss", "0.1"],
        ["--nodes", "1000", "--join-interval", "0"],
        ["--nodes", "1000", "--crash", "0.2"],
        ["--nodes", "1000", "--partition", "600"],
        ["--nodes", "10000"],
        ["--nodes", "10000", "--join-interval", "0"],
        ["--nodes", "10000", "--loss", "0.1", "--crash", "0.2"],
    ],
)
def test_large_overlays_equal_another_tools_triangulation(
    tmp_path: Path, options: list[str]
) -> None:
    path = tmp_path / "g.json"
    report(simulate("--seed", "7", "--json", "--dump", path, *options))
    tables = graph(load(path))
    assert tables == scipy_graph(list(tables))


def check_tree(dump: dict[str, Any], fields: dict[str, Any], delays: Any) -> None:
    """The figures of the tree, computed once more from the dump alone."""
    parent = {member["id"]: member["parent"] for member in dump["members"]}
    (root,) = [member for member, above in parent.items() if above is None]
    assert fields["root"] == dump["root"] == root
    stretch, costs = [], []
    for member, above in parent.items():
        if above is None:
            continue
        along, at = 0.0, member
        while (higher := parent[at]) is not None:
            along += delays[higher][at]
            at = higher
        assert at == root
        stretch.append(along / delays[root][member])
        costs.append(delays[above][member])
        neighbors = dump["members"][member]["neighbors"]
        assert above in neighbors
    assert fields["stretch"]["mean"] == pytest.approx(numpy.mean(stretch))
    assert fields["stretch"]["max"] == pytest.approx(max(stretch))
    assert fields["cost"]["mean"] == pytest.approx(numpy.mean(costs))


def test_chosen_addresses_give_the_reference(tmp_path: Path) -> None:
    places, path = tmp_path / "grid", tmp_path / "g.json"
    places.write_text("".join(f"{x},{y}\n\n" for x in range(6) for y in range(6)))
    fields = report(simulate("--addresses", places, "--json", "--dump", path))
    assert fields["nodes"] == 36
    tables = graph(load(path))
    assert tables == delaunay(list(tables))
    assert set(tables) == {(x, y) for x in range(6) for y in range(6)}


def test_faults_combine_and_survivors_are_legitimate(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    fields = report(
        simulate(
            *("--nodes", "60", "--crash", "0.2", "--partition", "20", "--loss", "0.05"),
            *("--json", "--dump", path),
        )
    )
    assert fields["legitimate"] is True
    dump = load(path)
    dead = [member for member in dump["members"] if not member["alive"]]
    assert len(dead) == 12
    assert all(m["neighbors"] == [] and m["parent"] is None and m["address"] for m in dead)
    tables = graph(dump)
    assert len(tables) == 48
    assert tables == scipy_graph(list(tables))


def test_what_does_not_become_legitimate_is_exit_status_1() -> None:
    result = simulate("--nodes", "3", "--loss", "1", "--json")
    assert result.exit_code == 1
    fields = json.loads(result.stdout)
    assert fields["legitimate"] is False
    assert fields["time_to_legitimate_s"] is None


def test_equal_words_give_equal_answers_whatever_the_hash_seed(tmp_path: Path) -> None:
    def answer(hash_seed: str) -> tuple[dict[str, Any], bytes]:
        path = tmp_path / f"g{hash_seed}.json"
        command = [
            *(sys.executable, "-m", "opus_socket.cli", "simulate", "--nodes", "40", "--json"),
            *("--loss", "0.1", "--crash", "0.2", "--seed", "3", "--dump", str(path)),
        ]
        run = subprocess.run(
            command,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=60,
        )
        fields = json.loads(run.stdout)
        del fields["wall_s"], fields["events_per_s"]
        return fields, path.read_bytes()

    assert answer("0") == answer("1")


def test_the_configuration_is_that_of_every_verb(tmp_path: Path) -> None:
    file = tmp_path / "hypercast.toml"
    file.write_text('overlay_id = "lab"\n[node.delaunay]\nheartbeat = 2.0\n')
    fields = report(simulate("--nodes", "4", "--config", file, "--json"))
    assert fields["parameters"]["heartbeat"] == 2.0
    fields = report(simulate("--nodes", "4", "--set", "node.delaunay.heartbeat=0.5", "--json"))
    assert fields["parameters"]["heartbeat"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "0"], "--nodes"),
        (["--nodes", "many"], "--nodes"),
        (["--loss", "1.5"], "--loss"),
        (["--loss", "-0.1"], "--loss"),
        (["--loss", "nan"], "loss"),
        (["--jitter", "inf"], "jitter"),
        (["--crash", "1"], "--crash"),
        (["--partition", "-1"], "--partition"),
        (["--partition", "nan"], "partition"),
        (["--join-interval", "-1"], "--join-interval"),
        (["--network", "torus:3"], "torus:3"),
        (["--network", "random:9-3"], "low"),
        (["--protocol", "torus"], "torus"),
        (["--set", "node.delaunay.heartbeat=0"], "heartbeat"),
        (["--addresses", "no-such-file"], "no-such-file"),
        (["--dump", "no-such-folder/g.json"], "no-such-folder"),
    ],
)
def test_bad_usage_is_one_error_and_exit_status_2(arguments: list[str], said: str) -> None:
    result = simulate("--nodes", "3", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2\n3,4\nfive,6\n", "line 3"),
        ("1,2\n3\n", "line 2"),
        ("1,2\n4294967295,1\n", "line 2"),
        ("1,2\n\n3,4\n1, 2\n", "line 4: 1, 2 stands in line 1"),
        ("\n\n", "no address"),
        (b"\xff\xfe\n", "UTF-8"),
    ],
)
def test_bad_addresses_are_told_by_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    file = tmp_path / "addresses"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    result = simulate("--addresses", file)
    assert result.exit_code == 2
    assert said in result.stderr
    assert str(file) in result.stderr


def test_more_addresses_than_members_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "addresses"
    file.write_text("1,2\n3,4\n5,6\n")
    result = simulate("--addresses", file, "--nodes", "2")
    assert result.exit_code == 2
    assert "3 addresses for 2 members" in result.stderr
