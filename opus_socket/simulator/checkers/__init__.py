"""Checkers: what *legitimate* means for each topology, stated a second time.

Their one rule: a checker sees the whole overlay, decides by another algorithm than the
protocol under test, and shares no code with it, so that one mistake cannot hide in both.

- `delaunay`: the Delaunay triangulation of all members, with the tie rule.
- `trees`: routing trees: whether they span, and their stretch, stress and cost.
"""
