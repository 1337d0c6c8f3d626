"""Lines of a stream, however it is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from opus_socket.cli.streams import LineSplitter, TooLong

LONGEST = 3


@example(data=b"", cuts=[])
@example(data=b"\n", cuts=[])
@example(data=b"abcd\nabc", cuts=[2, 6])
@given(
    data=st.lists(st.sampled_from([b"a", b"\n", b"\r"])).map(b"".join),
    cuts=st.lists(st.integers(0, 60)),
)
def test_lines_do_not_depend_on_how_the_stream_is_cut(data: bytes, cuts: list[int]) -> None:
    """Every newline ends a line, so does the end; of a line above the limit the length is kept."""
    splitter = LineSplitter(LONGEST)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    lines = [line for here, there in pairwise(places) for line in splitter.feed(data[here:there])]
    lines += splitter.finish()
    expected = data.removesuffix(b"\n").split(b"\n") if data else []
    assert lines == [
        line if len(line) <= LONGEST else TooLong(number, len(line))
        for number, line in enumerate(expected, 1)
    ]


@given(chunks=st.lists(st.binary(max_size=20).map(lambda chunk: chunk.replace(b"\n", b""))))
def test_a_line_without_end_takes_no_more_than_the_longest(chunks: list[bytes]) -> None:
    splitter = LineSplitter(LONGEST)
    for chunk in chunks:
        assert splitter.feed(chunk) == []
        assert splitter.held <= LONGEST
    length = sum(map(len, chunks))
    assert splitter.finish() == (
        [b"".join(chunks) if length <= LONGEST else TooLong(1, length)] if length else []
    )
