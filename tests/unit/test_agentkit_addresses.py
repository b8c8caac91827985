"""Which contact endpoints are accepted, in every spelling a host can take."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.agentkit_client import check_address, check_endpoint
from opscore.agentkit_client.addresses import read_address
from opscore.exceptions import ForbiddenEndpointError
from opscore.models import EndpointPolicy

PUBLIC = [
    "http://agents.example.com/task",
    "https://agents.example.com:8443/task?token=a",
    "http://8.8.8.8/task",
    "http://[2606:4700::1111]:9000/",
    "http://b\u00fccher.example/task",
    "HTTP://Agents.Example.Com/task",
    "http://agent_1.example.com./task",
    "http://8.8.8.8./",
    "http://[::ffff:8.8.8.8]/",
]
PRIVATE = [
    "http://127.0.0.1:9102/task",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://10.1.2.3/",
    "http://172.16.0.1/",
    "http://192.168.1.10:8080/task",
    "http://100.64.0.1/",
    "http://[::1]:9000/",
    "http://[fd12:3456::1]/",
    "http://[fec0::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:0:10.0.0.1]/",
    "http://[64:ff9b::10.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://localhost:9000/task",
    "http://agent.localhost/task",
    "http://LOCALHOST./task",
    "http://local\u00adhost/task",
    "http://127.0.0.1\u00ad/task",
    "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/task",
]
NEVER = [
    "http://169.254.169.254/latest/meta-data",
    "http://169.254.1.1/",
    "http://169.254.169.254./",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0xA9.0xFE.0xA9.0xFE/",
    "http://0251.0376.0251.0376/",
    "http://025177524776/",
    "http://169.254.43518/",
    "http://169.16689662/",
    "http://0000000251.254.169.254/",
    "http://\uff11\uff16\uff19.254.169.254/",
    "http://169\u3002254\u3002169\u3002254/",
    "http://\u2460\u2465\u2468.254.169.254/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "http://[::169.254.169.254]/",
    "http://[::ffff:0:a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:a9fe:a9fe::1]/",
    "http://[2001:0:4136:e378:8000:63bf:5601:5601]/",
    "http://[2606:4700::5efe:169.254.169.254]/",
    "http://[2606:4700::200:5efe:a9fe:a9fe]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[fd00:ec2::254]/",
    "http://[fd00:ec2::23]/v1/credentials",
    "http://[fd00:ec2::253]/",
    "http://[fd00:c1::a9fe:a9fe]/",
    "http://[fd00:42::42]/",
    "http://169.254.170.23/v1/credentials",
    "http://169.254.170.2/",
    "http://169.254.42.42/conf",
    "http://169.254.169\u00ad.254/",
    "http://169.254.169.254\u00ad/",
    "http://[::ffff:169.254.170.23]/",
    "http://meta\u00addata.google.internal/",
    "http://[fd20:ce::254]/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://0.0.0.0/",
    "http://0/",
    "http://0x/",
    "http://0.1.2.3/",
    "http://[::]/",
    "http://224.0.0.1/",
    "http://[ff02::1]/",
    "http://255.255.255.255/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://Metadata.Google.Internal./",
    "http://metadata.goog/",
    "http://instance-data/latest",
]
MALFORMED = [
    "",
    "agents.example.com/task",
    "//agents.example.com/task",
    "ftp://agents.example.com/",
    "file:///etc/passwd",
    "gopher://agents.example.com/",
    "unix:///run/agent.sock",
    "http://",
    "http:///task",
    "http://:80/",
    "http://user@agents.example.com/",
    "http://user:secret@agents.example.com/",
    "http://@agents.example.com/",
    "http://agents.example.com@169.254.169.254/",
    "http://agents.example.com/#part",
    "http://agents.example.com/#",
    "http://agents.example.com:0/",
    "http://agents.example.com:65536/",
    "http://agents.example.com:port/",
    "http://agents.example.com:/",
    "http://agents.example.com:8O/",
    "http://agents example.com/",
    "http://agents.example.com/a b",
    "http://agents.example.com/\r\nHost: other",
    "http://agents.example.com\\@169.254.169.254/",
    "http://agents.example.com/\0",
    "http://agents%2eexample.com/",
    "http://169%2e254.169.254/",
    "http://agents..example.com/",
    "http://.example.com/",
    "http://./",
    "http://[::1/",
    "http://[127.0.0.1]/",
    "http://[v1.127.0.0.1]/",
    "http://[v1.agents]/",
    "http://[v6.fe80::1]/",
    "http://[vF.localhost]/",
    "http://\u00ad/",
    "http://xn--\u00fc.test/",
    "http://[::g]/",
    "http://256.1.1.1/",
    "http://1.2.3.4.5/",
    "http://4294967296/",
    "http://1.2.65536/",
    "http://08.1.1.1/",
    "http://agents.example.0x7f/",
    "http://agents.example.com/" + "a" * 2048,
    "http://" + "a" * 254 + "/",
]


@pytest.mark.parametrize("url", PUBLIC)
@pytest.mark.parametrize("allow_private", [True, False])
def test_F90_public_endpoints_are_accepted_as_written(url: str, allow_private: bool) -> None:
    assert check_endpoint(url, EndpointPolicy(allow_private)) == url


@pytest.mark.parametrize("url", PRIVATE)
def test_F90_private_endpoints_need_the_setting(url: str) -> None:
    assert check_endpoint(url, EndpointPolicy(True)) == url
    with pytest.raises(ForbiddenEndpointError) as refused:
        check_endpoint(url, EndpointPolicy(False))
    assert "OPSCORE_ALLOW_PRIVATE_ENDPOINTS" in refused.value.detail


@pytest.mark.parametrize("url", NEVER + MALFORMED)
@pytest.mark.parametrize("allow_private", [True, False])
def test_F90_forbidden_and_malformed_endpoints_are_refused(url: str, allow_private: bool) -> None:
    with pytest.raises(ForbiddenEndpointError) as refused:
        check_endpoint(url, EndpointPolicy(allow_private))
    assert refused.value.detail.endswith(".")
    assert not url or url not in refused.value.detail


def _spellings(value: int) -> list[str]:
    octets = [value >> shift & 0xFF for shift in (24, 16, 8, 0)]
    return [
        str(value),
        hex(value),
        f"0{value:o}",
        ".".join(map(str, octets)),
        ".".join(map(hex, octets)),
        ".".join(f"0{octet:o}" for octet in octets),
        ".".join(f"{octet:#06x}" for octet in octets),
        f"{octets[0]}.{value & 0xFFFFFF}",
        f"{octets[0]}.{octets[1]:#x}.{value & 0xFFFF}",
    ]


@given(st.ip_addresses(v=4))
def test_F90_every_spelling_of_an_ipv4_address_is_read_alike(address: IPv4Address) -> None:
    assert {read_address(host) for host in _spellings(int(address))} == {address}


@given(st.ip_addresses(v=4, network="169.254.0.0/16"))
def test_F90_no_spelling_of_a_link_local_address_passes(address: IPv4Address) -> None:
    low = f"{int(address) >> 16:x}:{int(address) & 0xFFFF:x}"
    wrapped = [f"[{prefix}{low}]" for prefix in ("::ffff:", "::", "64:ff9b::", "::ffff:0:")]
    for host in [*_spellings(int(address)), *wrapped, f"[2002:{low}::]"]:
        with pytest.raises(ForbiddenEndpointError):
            check_endpoint(f"http://{host}/task", EndpointPolicy(True))


@given(st.ip_addresses(v=6))
def test_F90_every_spelling_of_an_ipv6_address_is_read_alike(address: IPv6Address) -> None:
    assert read_address(address.exploded.upper()) == read_address(str(address)) == address


@pytest.mark.parametrize("host", ["::g", "1::2::3", "fe80::1%eth0", "256.1.1.1", "0x100000000"])
def test_F90_what_looks_like_an_address_and_is_none_is_refused(host: str) -> None:
    with pytest.raises(ForbiddenEndpointError):
        read_address(host)


@given(st.text(max_size=40))
def test_F90_an_endpoint_is_accepted_or_refused_and_never_breaks_the_check(text: str) -> None:
    for url in (text, f"http://{text}/", f"http://[{text}]:80"):
        assert _verdict(url) in ("accepted", "refused")


def _verdict(url: str) -> str:
    try:
        return "accepted" if check_endpoint(url, EndpointPolicy(False)) == url else "changed"
    except ForbiddenEndpointError:
        return "refused"


@pytest.mark.parametrize(
    ("address", "allow_private", "allowed"),
    [
        ("8.8.8.8", False, True),
        ("2606:4700::1111", False, True),
        ("127.0.0.1", True, True),
        ("127.0.0.1", False, False),
        ("::1", True, True),
        ("::1", False, False),
        ("::ffff:127.0.0.1", False, False),
        ("169.254.169.254", True, False),
        ("fe80::1%eth0", True, False),
        ("100.64.0.1", False, False),
        ("240.0.0.1", False, False),
    ],
)
def test_F90_addresses_are_judged_at_connect(
    address: str, allow_private: bool, allowed: bool
) -> None:
    for spelled in (address, ip_address(address)):
        if allowed:
            check_address(spelled, EndpointPolicy(allow_private))
        else:
            with pytest.raises(ForbiddenEndpointError):
                check_address(spelled, EndpointPolicy(allow_private))


# --- the allow list -----------------------------------------------------------------------------

LISTED = EndpointPolicy.of(
    False, ["10.1.0.0/16", "fd12::/16", "203.0.113.7", "agents.example.org", "*.pool.example.org"]
)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.1.2.3/",
        "http://0x0a010203/",
        "http://[::ffff:10.1.2.3]/",
        "http://[fd12::1]/",
        "http://203.0.113.7/",
        "http://agents.example.org/",
        "http://AGENTS.example.org./",
        "http://one.pool.example.org/",
        "http://resolved-later.example.com/",
    ],
)
def test_listed_endpoints_are_accepted_although_private(url: str) -> None:
    assert check_endpoint(url, LISTED) == url


@pytest.mark.parametrize(
    "url",
    ["http://10.2.0.1/", "http://8.8.8.8/", "http://[64:ff9b::8.8.8.8]/", "http://127.0.0.1/"],
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_unlisted_addresses_are_refused(url: str, allow_private: bool) -> None:
    with pytest.raises(ForbiddenEndpointError) as refused:
        check_endpoint(url, EndpointPolicy(allow_private, LISTED.networks, LISTED.names))
    assert "OPSCORE_ENDPOINT_ALLOWLIST" in refused.value.detail


def test_unlisted_names_are_refused_at_once_if_no_network_is_listed() -> None:
    names_only = EndpointPolicy.of(True, ["agents.example.org"])
    for host in ("agents.example.com", "evil-agents.example.org", "a.agents.example.org"):
        with pytest.raises(ForbiddenEndpointError):
            check_endpoint(f"http://{host}/", names_only)


@pytest.mark.parametrize(
    ("name", "address", "allowed"),
    [
        ("agents.example.org", "192.168.0.1", True),
        ("other.example.org", "10.1.9.9", True),
        ("other.example.org", "192.168.0.1", False),
        ("other.example.org", "8.8.8.8", False),
        ("agents.example.org", "169.254.169.254", False),
        ("one.pool.example.org", "fd00:ec2::23", False),
    ],
)
def test_resolved_address_is_judged_by_the_allow_list(
    name: str, address: str, allowed: bool
) -> None:
    if allowed:
        check_address(address, LISTED, name)
    else:
        with pytest.raises(ForbiddenEndpointError):
            check_address(address, LISTED, name)


def test_metadata_addresses_are_refused_although_listed() -> None:
    everything = EndpointPolicy.of(True, ["0.0.0.0/0", "::/0", "metadata.google.internal"])
    for url in (
        "http://169.254.170.23/",
        "http://[fd00:ec2::23]/",
        "http://metadata.google.internal/",
    ):
        with pytest.raises(ForbiddenEndpointError):
            check_endpoint(url, everything)


@pytest.mark.parametrize(
    "entry", ["10.0.0.1/8", "10.0.0.0/33", "256.0.0.1", "http://a", "a/b", "*", "a..b", "a.*"]
)
def test_allow_list_with_an_unreadable_entry_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        EndpointPolicy.of(True, [entry])
