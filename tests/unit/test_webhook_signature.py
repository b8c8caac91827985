from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.exceptions import UnauthorizedError
from opscore.signature import sign, verify

SECRET = "whsec_test_0123456789abcdef"
SENT = 1_700_000_000
NOW = datetime.fromtimestamp(SENT, UTC)
BODY = '{"n":"é"}'.encode()

Headers = list[tuple[bytes, bytes]]


def headers(timestamp: str | bytes, signature: str | bytes) -> Headers:
    return [(b"x-agentkit-timestamp", _raw(timestamp)), (b"x-agentkit-signature", _raw(signature))]


def signed(timestamp: str, body: bytes = BODY, secret: str = SECRET) -> Headers:
    return headers(timestamp, sign(secret, timestamp, body))


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8")


def refused(given: Headers, body: bytes = BODY, secrets: tuple[str, ...] = (SECRET,)) -> None:
    with pytest.raises(UnauthorizedError):
        verify(given, body, secrets, NOW)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "814e706027d44b6013448b27b12c76ad281f72d11fcf05d71e1ef85b69465064"),
        (BODY, "6878d5318e03d56ae8da78b2867b2013a286c01b3a1d9d0b2658a320d63798e9"),
    ],
)
def test_the_vectors_of_the_wire(body: bytes, expected: str) -> None:
    assert sign(SECRET, "1700000000", body) == expected
    assert verify(headers("1700000000", expected), body, [SECRET], NOW) == expected


def test_header_names_in_any_case() -> None:
    made = [(name.title(), value) for name, value in signed("1700000000")]
    assert verify(made, BODY, [SECRET], NOW)


GOOD = dict(signed("1700000000"))
TIMESTAMP, SIGNATURE = GOOD.items()


@pytest.mark.parametrize(
    "given",
    [
        [],
        [TIMESTAMP],
        [SIGNATURE],
        [TIMESTAMP, (SIGNATURE[0], b"")],
        [(TIMESTAMP[0], b""), SIGNATURE],
        [TIMESTAMP, SIGNATURE, SIGNATURE],
        [TIMESTAMP, TIMESTAMP, SIGNATURE],
        [TIMESTAMP, (TIMESTAMP[0].title(), TIMESTAMP[1]), SIGNATURE],
    ],
)
def test_F52_header_missing_empty_or_doubled(given: Headers) -> None:
    refused(given)


@pytest.mark.parametrize(
    "signature",
    [
        sign("whsec_another", "1700000000", BODY),
        GOOD[b"x-agentkit-signature"][:-1],
        GOOD[b"x-agentkit-signature"] + b"0",
        GOOD[b"x-agentkit-signature"].upper(),
        GOOD[b"x-agentkit-signature"] + b"\n",
        b" " + GOOD[b"x-agentkit-signature"],
        "é" * 64,
        b"\xff" * 64,
        "٣" * 64,
    ],
)
def test_F53_a_signature_that_is_not_the_one(signature: str | bytes) -> None:
    refused(headers("1700000000", signature))


@given(st.integers(0, 255))
def test_F53_any_flipped_bit(bit: int) -> None:
    genuine = int(sign(SECRET, "1700000000", BODY), 16)
    refused(headers("1700000000", f"{genuine ^ (1 << bit):064x}"))


@pytest.mark.parametrize(
    "timestamp",
    [
        " 1700000000", "1700000000 ", "+1700000000", "-1700000000", "1_700_000_000", "1.7e9",
        "1700000000.0", "1e9", "nan", "inf", "0x6553f100", "9" * 400, "1700000000\n", "",
        "2023-11-14", "2023-11-14T22:13:20", "2023-11-14 22:13:20Z", "2023-02-30T00:00:00Z",
        "2023-11-14T22:13:20.Z", "2023-W46-2T22:13:20Z", "not a time",
    ],
)  # fmt: skip
def test_F54_a_timestamp_that_is_no_timestamp(timestamp: str) -> None:
    refused(signed(timestamp))


def test_F54_arabic_digits() -> None:
    refused(headers("١٧٠٠٠٠٠٠٠٠", sign(SECRET, "1700000000", BODY)))


@pytest.mark.parametrize("skew", [-300, -299, 0, 299, 300])
def test_F55_within_the_window(skew: int) -> None:
    assert verify(signed(str(SENT + skew)), BODY, [SECRET], NOW)


@pytest.mark.parametrize("skew", [-100_000, -301, 301, 100_000])
def test_F55_outside_of_the_window(skew: int) -> None:
    refused(signed(str(SENT + skew)))


@pytest.mark.parametrize(
    "timestamp",
    [
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20.123456Z",
        "2023-11-14T22:13:20.123456+00:00",
        "2023-11-14T23:13:20+01:00",
        "2023-11-14T17:13:20-0500",
    ],
)
def test_iso_timestamps_with_a_zone(timestamp: str) -> None:
    assert verify(signed(timestamp), BODY, [SECRET], NOW)


def test_F55_an_iso_timestamp_of_another_hour() -> None:
    refused(signed("2023-11-14T22:13:20+01:00"))
    refused(signed("0001-01-01T00:00:00+23:59"))


@pytest.mark.parametrize(
    ("timestamp", "moved"),
    [("1700000000", b"1"), ("2023-11-14T22:13:20", b"123456Z")],
)
def test_F56_nothing_moves_between_timestamp_and_body(timestamp: str, moved: bytes) -> None:
    signature = sign(SECRET, timestamp, moved + b".x")
    shifted = f"{timestamp}.{moved.decode()}"
    assert signature == sign(SECRET, shifted, b"x")
    one_is_refused = 0
    for stamp, body in ((timestamp, moved + b".x"), (shifted, b"x")):
        try:
            verify(headers(stamp, signature), body, [SECRET], NOW)
        except UnauthorizedError:
            one_is_refused += 1
    assert one_is_refused == 1


def test_F57_a_body_written_anew_does_not_match() -> None:
    refused(signed("1700000000", b'{"a":1}'), b'{"a": 1}')


@pytest.mark.parametrize("secrets", [(), ("",)])
def test_F60_without_a_secret_nothing_is_genuine(secrets: tuple[str, ...]) -> None:
    refused(signed("1700000000", secret="") if secrets else signed("1700000000"), secrets=secrets)


@pytest.mark.parametrize("secret", ["old-secret", "new-secret"])
def test_F61_two_secrets_while_rotating(secret: str) -> None:
    made = signed("1700000000", secret=secret)
    assert verify(made, BODY, ("old-secret", "new-secret"), NOW)
    refused(made, secrets=("a third one",))
