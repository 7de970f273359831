"""Kubernetes quantities: the whole grammar, exactly, with bounded work."""

import contextlib
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.core.errors import InvalidQuantity
from extender.core.requests.quantity import LARGEST, parse_quantity, rounded_up

DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


@pytest.mark.parametrize(("suffix", "exponent"), DECIMAL.items())
def test_decimal_suffixes(suffix: str, exponent: int) -> None:
    assert parse_quantity(f"3{suffix}") == 3 * Fraction(10) ** exponent


@pytest.mark.parametrize(("suffix", "power"), BINARY.items())
def test_binary_suffixes(suffix: str, power: int) -> None:
    assert parse_quantity(f"1.5{suffix}") == Fraction(3, 2) * 1024**power


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("-0", Fraction(0)),
        ("+2", Fraction(2)),
        ("-1.5", Fraction(-3, 2)),
        ("5.", Fraction(5)),
        (".5", Fraction(1, 2)),
        ("007", Fraction(7)),
        ("1e3", Fraction(1000)),
        ("1E3", Fraction(1000)),
        ("1E", Fraction(10**18)),
        ("12E-1", Fraction(6, 5)),
        ("1e+2", Fraction(100)),
        ("1e-0000000000000000000000003", Fraction(1, 1000)),
        ("0e99999999999999999999", Fraction(0)),
        ("1" + "0" * 5000 + "e-5000", Fraction(1)),
        ("0." + "0" * 3000 + "1e3001", Fraction(1)),
    ],
)
def test_forms(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


MALFORMED = (
    " | 1|1 |1\n|1 Gi|.|+|-|--1|+-1|1.2.3|Gi|1ki|1K|1gi|1KiB|1i|1mi|1e|1e+|1e1.5|1e3Ki|1_000|1,5|0x10"
    "|nan|inf|Infinity|abc|١|１|1е3"
)
NOT_TEXT: list[object] = [None, True, False, float("nan"), float("inf"), [], {}, ["1"], b"1", 1j]


@pytest.mark.parametrize("value", ["", *MALFORMED.split("|"), *NOT_TEXT])
def test_everything_else_is_refused(value: object) -> None:
    with pytest.raises(InvalidQuantity):
        parse_quantity(value)


@pytest.mark.parametrize(("value", "read"), [(4, 4), (0, 0), (-2, -2), (0.5, Fraction(1, 2)), (1e22, LARGEST)])
def test_bare_numbers_of_yaml(value: object, read: Fraction) -> None:
    assert parse_quantity(value) == read


@pytest.mark.parametrize(
    "text",
    [
        "9223372036854775808",
        "9223372036854775807.5",
        "8Ei",
        "10E",
        "1e19",
        "1e999999999",
        "9" * 10_000,
        "1e" + "9" * 9_000,
    ],
)
def test_beyond_64_bits_is_the_largest_as_in_kubernetes(text: str) -> None:
    assert parse_quantity(text) == LARGEST
    assert parse_quantity("-" + text) == -LARGEST


def test_the_largest_itself_and_one_less_are_exact() -> None:
    assert parse_quantity("9223372036854775807") == LARGEST
    assert parse_quantity("9223372036854775806") == LARGEST - 1
    assert parse_quantity(10**6000) == LARGEST


@pytest.mark.parametrize("text", ["0.1n", "0.0000000001", "1e-10", "1e-999999999", "0." + "0" * 9_000 + "1"])
def test_finer_than_a_billionth_is_rounded_away_from_zero(text: str) -> None:
    assert parse_quantity(text) == Fraction(1, 10**9)
    assert parse_quantity("-" + text) == Fraction(-1, 10**9)


def test_a_little_more_than_a_billionth_is_two() -> None:
    assert parse_quantity("1.0000000000000000000000000000001n") == Fraction(2, 10**9)
    assert parse_quantity("1." + "0" * 200 + "1") == 1 + Fraction(1, 10**9)


@pytest.mark.parametrize(
    "text",
    ["1" * 1_000_000, "1" * 1_000_000 + "x", "." * 1_000_000, "1e" + "1" * 1_000_000, "0" * 1_000_000 + "Ki"],
)
def test_work_is_linear_in_the_text(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(InvalidQuantity):
        parse_quantity(text)
    assert time.process_time() - start < 1


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidQuantity, match=r'^"x{40}…" is not a quantity$'):
        parse_quantity("x" * 5000)


@pytest.mark.parametrize("value", ["a\nb", "\ud800", "\x00", "\u202e"])
def test_a_message_is_one_printable_line(value: str) -> None:
    with pytest.raises(InvalidQuantity) as caught:
        parse_quantity(value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "parts", "whole"),
    [("1", 1, 1), ("0.1", 1, 1), ("1.0001", 1, 2), ("-0.5", 1, 0), ("0.1m", 1000, 1), ("1.5", 1000, 1500)],
)
def test_rounded_up(text: str, parts: int, whole: int) -> None:
    assert rounded_up(parse_quantity(text), parts) == whole


@given(
    digits=st.integers(0, 10**9),
    places=st.integers(0, 6),
    suffix=st.sampled_from(["", "k", "M", "Ki", "Mi", "Gi"]),
)
def test_agrees_with_plain_arithmetic(digits: int, places: int, suffix: str) -> None:
    factor = 1024 ** BINARY[suffix] if suffix in BINARY else 10 ** DECIMAL[suffix]
    text = f"{digits:0{places + 1}d}"
    text = f"{text[:-places]}.{text[-places:]}" if places else text
    assert parse_quantity(text + suffix) == min(Fraction(digits, 10**places) * factor, LARGEST)


@given(st.text() | st.from_regex(r"[+-]?[0-9.]{1,40}([eE][+-]?[0-9]{0,20}|[KMGTPEinumk]{0,2})", fullmatch=True))
def test_any_text_is_a_bounded_number_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidQuantity):
        value = parse_quantity(text)
        assert -LARGEST <= value <= LARGEST
        assert (value * 10**9).denominator == 1
