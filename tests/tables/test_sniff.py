"""Separators by consistency: what is found, what is refused."""

from __future__ import annotations

import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.tables import sniff


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a,b\n1,2\n3,4\n", ","),
        ("a;b\n1,5;2\n3,25;4\n", ";"),  # decimal commas are in no header
        ("2024-01-01;1,5\n2024-01-02;2,5\n", ";"),  # nor does a comma leave numbers and dates here
        ("1,5;2,5\n1,25;3,5\n", ";"),
        ("a\tb c\n1\t2\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ("'Smith, J';5\n'Jones, K';6\n", ";"),
        ('a,"x;y"\n1,"2;3"\n4,"5;6"\n', ","),  # quoted
        ("a b\n1.0 2.0\n3.0 4.0\n", sniff.SPACES),
        ("  1.0   2.0\n  3.0 -4.0\n", sniff.SPACES),
        ("value\n5\n6\n", sniff.NOTHING),
        ("value\n5,25\n6,75\n", sniff.NOTHING),  # one column: the name has no comma
        ("temp, C\n5\n6\n", sniff.NOTHING),
        ("2024-01-01 05:00\n2024-01-01 06:00\n", sniff.NOTHING),
        ("a,b\n1,2\n3,4,5\n6,7\n", ","),  # the faulty row is for the parser to name
    ],
)
def test_found(text: str, want: str) -> None:
    assert sniff.separator(sniff.head(text), "x.csv") == want


def test_as_good() -> None:
    lines = ["a;b,c;d", "x;y,z;w", "p;q,r;s"]
    with pytest.raises(
        UsageError, match=r"x.csv: its cells may be separated by ',' or ';'; say which with --sep"
    ):
        sniff.separator(lines, "x.csv")


def test_the_first_lines_are_whole_and_not_blank() -> None:
    assert sniff.head("a\n\n  \nb\nc", 2) == ["a", "b"]
    assert sniff.head("a") == ["a"]
