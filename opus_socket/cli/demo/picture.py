"""An overlay as a picture: members at their coordinates, edges, and the tree of one multicast.

Its one rule: the picture is one self-contained SVG file that explains itself: numbered members,
colored by process, gray edges of the overlay, arrows for the way that messages took, and a legend.
Members that would cover each other are moved apart by a few pixels; nothing else is moved.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from xml.sax.saxutils import escape

from attrs import frozen

SIZE = 1000
MARGIN = 60
LEGEND = 150
_LINE = 30
_MOST_LABELS = 150
_ROUNDS = 100
_GAP = 20.0
_COLORS = (
    "#1f6fb2",
    "#a8511a",
    "#2c7a4b",
    "#86358a",
    "#8a6a00",
    "#b0294a",
    "#2f6f73",
    "#5553c6",
)
_EDGE, _TREE, _INK, _PAPER = "#c2c8d2", "#e4570b", "#1d2530", "#ffffff"
_FONT = "font-family='Helvetica, Arial, sans-serif'"

Spot = tuple[float, float]


@frozen
class Figure:
    """A member of the picture.

    Attributes:
        number: its label.
        address: its logical address; two words are coordinates.
        process: the number of its process, which gives its color.
        parent: the number of the member that it gets messages from; None for the sender.
        neighbors: the numbers of its neighbors.
    """

    number: int
    address: tuple[int, ...]
    process: int
    parent: int | None
    neighbors: Collection[int]


def draw(figures: Sequence[Figure], title: str, remark: str) -> str:
    """The picture, as the text of an SVG file.

    Args:
        figures: the members; the one without a parent is the sender.
        title: the first line of the legend.
        remark: its second line.
    """
    radius = _radius(len(figures))
    spots = _places(figures, radius)
    height = SIZE + LEGEND
    head = min(14.0, 2 * radius)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {SIZE} {height}' {_FONT}>",
        f"<title>{escape(title)}</title>",
        "<defs><marker id='arrow' viewBox='0 0 10 10' refX='9' refY='5' "
        f"markerWidth='{head:.0f}' "
        f"markerHeight='{head:.0f}' markerUnits='userSpaceOnUse' orient='auto'>"
        f"<path d='M0 0L10 5L0 10z' fill='{_TREE}'/></marker></defs>",
        f"<rect width='{SIZE}' height='{height}' fill='{_PAPER}'/>",
        *_edges(figures, spots),
        *_tree(figures, spots, radius),
        *(_member(figure, spots[figure.number], radius) for figure in figures),
        *_legend(figures, title, remark),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _radius(count: int) -> float:
    """Of a member's circle: the more members, the smaller, and without labels at last."""
    if count > _MOST_LABELS:
        return max(2.0, 9.0 * math.sqrt(_MOST_LABELS / count))
    return min(20.0, max(11.0, 110 / math.sqrt(max(1, count))))


def _places(figures: Sequence[Figure], radius: float) -> dict[int, Spot]:
    """Where the members stand in the picture."""
    if all(len(figure.address) == 2 for figure in figures):
        spots = _scaled({figure.number: _point(figure.address) for figure in figures})
    else:
        spots = _on_a_circle([figure.number for figure in figures])
    return _apart(spots, 2 * radius + _GAP) if len(figures) <= _MOST_LABELS else spots


def _point(address: Sequence[int]) -> Spot:
    x, y = address
    return float(x), float(y)


def _scaled(points: Mapping[int, Spot]) -> dict[int, Spot]:
    """Coordinates of any size as pixels; x grows to the right, y upward, alike in scale."""
    xs, ys = zip(*points.values(), strict=True)
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = (SIZE - 2 * MARGIN) / span
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return {
        number: (SIZE / 2 + (x - middle_x) * scale, SIZE / 2 - (y - middle_y) * scale)
        for number, (x, y) in points.items()
    }


def _on_a_circle(numbers: Sequence[int]) -> dict[int, Spot]:
    reach = SIZE / 2 - MARGIN
    turn = 2 * math.pi / len(numbers)
    return {
        number: (
            SIZE / 2 + reach * math.sin(turn * position),
            SIZE / 2 - reach * math.cos(turn * position),
        )
        for position, number in enumerate(numbers)
    }


def _apart(spots: dict[int, Spot], distance: float) -> dict[int, Spot]:
    """The same spots, those that are too close pushed apart, but not out of the picture."""
    spots = dict(spots)
    least, most = distance / 2, SIZE - distance / 2
    for _ in range(_ROUNDS):
        crowded = False
        for one, other in combinations(spots, 2):
            (x1, y1), (x2, y2) = spots[one], spots[other]
            dx, dy = x2 - x1, y2 - y1
            between = math.hypot(dx, dy)
            if between >= distance - 0.01:
                continue
            crowded = True
            if between < 1:
                # On one pixel no direction is the right one: each pair takes another.
                dx, dy, between = math.cos(one + 7 * other), math.sin(one + 7 * other), 1.0
            push = (distance - min(between, distance)) / 2 / between
            dx, dy = dx * push, dy * push
            spots[one] = (_within(x1 - dx, least, most), _within(y1 - dy, least, most))
            spots[other] = (_within(x2 + dx, least, most), _within(y2 + dy, least, most))
        if not crowded:
            break
    return spots


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def _edges(figures: Sequence[Figure], spots: Mapping[int, Spot]) -> Iterator[str]:
    """The edges of the overlay that the tree does not use, each once."""
    tree = {frozenset((figure.number, figure.parent)) for figure in figures}
    for figure in figures:
        for neighbor in figure.neighbors:
            pair = frozenset((figure.number, neighbor))
            if figure.number < neighbor and neighbor in spots and pair not in tree:
                (x1, y1), (x2, y2) = spots[figure.number], spots[neighbor]
                yield (
                    f"<line class='edge' x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
                    f"stroke='{_EDGE}' stroke-width='1.5'/>"
                )


def _tree(figures: Sequence[Figure], spots: Mapping[int, Spot], radius: float) -> Iterator[str]:
    """An arrow from each parent to its child, which ends at the child's circle."""
    for figure in figures:
        if figure.parent is None or figure.parent not in spots:
            continue
        (x1, y1), (x2, y2) = spots[figure.parent], spots[figure.number]
        length = math.hypot(x2 - x1, y2 - y1) or 1.0
        share = max(0.0, 1 - (radius + 1) / length)
        x2, y2 = x1 + (x2 - x1) * share, y1 + (y2 - y1) * share
        yield (
            f"<line class='tree' x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
            f"stroke='{_TREE}' stroke-width='3' marker-end='url(#arrow)'/>"
        )


def _member(figure: Figure, spot: Spot, radius: float) -> str:
    x, y = spot
    address = ",".join(map(str, figure.address))
    ring = ""
    if figure.parent is None:
        ring = (
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius + 5:.1f}' fill='none' "
            f"stroke='{_TREE}' stroke-width='4'/>"
        )
    label = ""
    if radius > 9:
        label = (
            f"<text x='{x:.1f}' y='{y:.1f}' dy='.35em' text-anchor='middle' fill='{_PAPER}' "
            f"font-size='{radius:.0f}' font-weight='bold'>{figure.number}</text>"
        )
    return (
        f"<g class='member'><title>member {figure.number} at {address}, process "
        f"{figure.process}</title>{ring}<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}' "
        f"fill='{_color(figure.process)}' stroke='{_PAPER}' stroke-width='1.5'/>{label}</g>"
    )


def _color(process: int) -> str:
    return _COLORS[process % len(_COLORS)]


def _legend(figures: Sequence[Figure], title: str, remark: str) -> Iterator[str]:
    x, y = MARGIN, SIZE + _LINE
    yield f"<line x1='{x}' y1='{SIZE}' x2='{SIZE - x}' y2='{SIZE}' stroke='{_EDGE}'/>"
    yield _text(x, y, title, size=22, bold=True)
    yield _text(x, y + _LINE, remark)
    y += 2 * _LINE
    yield (
        f"<line x1='{x}' y1='{y - 5}' x2='{x + 46}' y2='{y - 5}' stroke='{_TREE}' "
        "stroke-width='3' marker-end='url(#arrow)'/>"
    )
    yield _text(x + 58, y, "the way of the multicast, from the ringed member")
    yield (
        f"<line x1='{x + 500}' y1='{y - 5}' x2='{x + 546}' y2='{y - 5}' stroke='{_EDGE}' "
        "stroke-width='1.5'/>"
    )
    yield _text(x + 558, y, "other neighbors")
    y += _LINE
    processes = sorted({figure.process for figure in figures})
    step = min(110.0, (SIZE - 2 * MARGIN) / len(processes))
    for position, process in enumerate(processes):
        left = x + position * step
        yield f"<circle cx='{left + 8:.1f}' cy='{y - 5}' r='8' fill='{_color(process)}'/>"
        if step >= 28:
            name = f"process {process}" if step >= 100 else str(process)
            yield _text(left + 22, y, name, size=15)


def _text(x: float, y: float, text: str, *, size: int = 17, bold: bool = False) -> str:
    weight = " font-weight='bold'" if bold else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' fill='{_INK}' font-size='{size}'{weight}>"
        f"{escape(text)}</text>"
    )
