"""The picture of an overlay: it holds everything once, at its place, and can be read."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.cli.demo.picture import LEGEND, SIZE, Figure, draw
from opus_socket.simulator.checkers.delaunay import Point, reference_triangulation

WORD_MAX = 0xFFFF_FFFF
SVG = "{http://www.w3.org/2000/svg}"
coordinates = st.integers(0, WORD_MAX - 1)
distinct_points = st.lists(
    st.tuples(coordinates, coordinates), min_size=1, max_size=24, unique=True
)


def overlay(points: list[Point], processes: int = 4) -> list[Figure]:
    """The triangulation of these points, with the tree of breadth-first search from the first."""
    numbers = {point: number for number, point in enumerate(points, 1)}
    neighbors = reference_triangulation(points)
    parents: dict[Point, Point | None] = {points[0]: None}
    for point in (reached := [points[0]]):
        for neighbor in neighbors[point]:
            if neighbor not in parents:
                parents[neighbor] = point
                reached.append(neighbor)
    return [
        Figure(
            numbers[point],
            point,
            numbers[point] % processes,
            None if (parent := parents[point]) is None else numbers[parent],
            [numbers[neighbor] for neighbor in neighbors[point]],
        )
        for point in points
    ]


def scattered(count: int) -> list[Point]:
    rng = Random(count)
    return [(rng.randrange(WORD_MAX), rng.randrange(WORD_MAX)) for _ in range(count)]


def parse(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def spots(picture: ElementTree.Element) -> list[tuple[float, float]]:
    """The middles of the members' circles, in the order of their numbers."""
    circles = [group.findall(f"{SVG}circle")[-1] for group in members(picture)]
    return [(float(circle.attrib["cx"]), float(circle.attrib["cy"])) for circle in circles]


def members(picture: ElementTree.Element) -> list[ElementTree.Element]:
    return [g for g in picture.iter(f"{SVG}g") if g.attrib.get("class") == "member"]


def lines(picture: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [line for line in picture.iter(f"{SVG}line") if line.attrib.get("class") == kind]


@given(distinct_points)
def test_each_member_and_each_edge_is_drawn_once(points: list[Point]) -> None:
    """Invariant: one circle a member; tree edges and other edges together are the overlay's."""
    figures = overlay(points)
    picture = parse(draw(figures, "title", "remark"))
    edges = sum(len(figure.neighbors) for figure in figures) // 2
    assert len(members(picture)) == len(points)
    assert len(lines(picture, "tree")) == len(points) - 1
    assert len(lines(picture, "edge")) == edges - (len(points) - 1)


@given(distinct_points)
def test_members_stand_inside_the_picture(points: list[Point]) -> None:
    """Invariant: no circle leaves the part of the picture above the legend."""
    for x, y in spots(parse(draw(overlay(points), "title", "remark"))):
        assert 0 < x < SIZE
        assert 0 < y < SIZE


@pytest.mark.parametrize("count", [2, 16, 48, 150])
def test_no_member_covers_another(count: int) -> None:
    picture = parse(draw(overlay(scattered(count)), "title", "remark"))
    radius = float(members(picture)[-1].findall(f"{SVG}circle")[-1].attrib["r"])
    nearest = min(math.dist(one, other) for one, other in combinations(spots(picture), 2))
    assert nearest > 2 * radius


@pytest.mark.parametrize("count", [16, 48])
def test_every_member_has_its_number(count: int) -> None:
    picture = parse(draw(overlay(scattered(count)), "title", "remark"))
    labels = [group.findtext(f"{SVG}text") for group in members(picture)]
    assert labels == [str(number) for number in range(1, count + 1)]


def test_coordinates_keep_their_shape_with_y_upward() -> None:
    points = [(0, 0), (4000, 0), (4000, 3000), (0, 3000)]
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = spots(parse(draw(overlay(points), "t", "r")))
    assert (x1 - x0) / (y1 - y2) == pytest.approx(4 / 3, abs=0.01)
    assert (x0, x1) == (x3, x2)
    assert y0 == y1 > y2 == y3


def test_an_arrow_ends_at_the_circle_of_a_child_and_points_away_from_its_parent() -> None:
    picture = parse(draw(overlay([(0, 0), (1000, 0)]), "t", "r"))
    (parent, child), (arrow,) = spots(picture), lines(picture, "tree")
    start = (float(arrow.attrib["x1"]), float(arrow.attrib["y1"]))
    end = (float(arrow.attrib["x2"]), float(arrow.attrib["y2"]))
    radius = float(members(picture)[1].findall(f"{SVG}circle")[-1].attrib["r"])
    assert start == parent
    assert math.dist(end, child) == pytest.approx(radius, abs=2)
    assert arrow.attrib["marker-end"] == "url(#arrow)"


def test_the_sender_alone_is_ringed() -> None:
    picture = parse(draw(overlay(scattered(16)), "t", "r"))
    assert [len(group.findall(f"{SVG}circle")) for group in members(picture)] == [2] + [1] * 15


def test_members_of_one_process_have_one_color_and_a_place_in_the_legend() -> None:
    picture = parse(draw(overlay(scattered(16), processes=3), "t", "r"))
    colors = Counter(g.findall(f"{SVG}circle")[-1].attrib["fill"] for g in members(picture))
    assert sorted(colors.values()) == [5, 5, 6]
    legend = {circle.attrib["fill"] for circle in picture.findall(f"{SVG}circle")}
    assert legend == set(colors)
    texts = {text.text for text in picture.findall(f"{SVG}text")}
    assert {"process 0", "process 1", "process 2"} <= texts


def test_it_stands_alone_and_scales() -> None:
    text = draw(overlay(scattered(16)), "a <title> & more", "a remark")
    picture = parse(text)
    assert picture.attrib["viewBox"] == f"0 0 {SIZE} {SIZE + LEGEND}"
    assert "width" not in picture.attrib
    assert "href" not in text
    assert text.count("url(") == text.count("url(#arrow)")
    assert picture.findtext(f"{SVG}title") == "a <title> & more"
    assert {"a <title> & more", "a remark"} <= {t.text for t in picture.findall(f"{SVG}text")}


def test_addresses_that_are_no_coordinates_stand_on_a_circle() -> None:
    figures = [Figure(n, (n,), 0, None if n == 0 else n // 2, [n // 2]) for n in range(12)]
    center = SIZE / 2, SIZE / 2
    distances = {round(math.dist(spot, center)) for spot in spots(parse(draw(figures, "t", "r")))}
    assert len(distances) == 1


def test_a_crowd_is_drawn_without_labels() -> None:
    picture = parse(draw(overlay(scattered(400), processes=12), "t", "r"))
    assert len(members(picture)) == 400
    assert all(group.find(f"{SVG}text") is None for group in members(picture))
