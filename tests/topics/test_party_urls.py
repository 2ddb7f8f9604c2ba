"""URLs of parties: one shape, in which the path that a call appends stays the end of the path."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from topics.party_urls import PartyUrl, party_url_problem

GOOD = [
    "https://pos.example",
    "https://pos.example/",
    "https://pos.example:8443/a/b%20c/~x",
    "http://127.0.0.1:5050/restaurants/ballard-slice",
    "http://[::1]:5050/restaurants/x",
    "http://localhost",
    "https://xn--bcher-kva.example/@shop",
    "https://pos_1.example:65535",
]
WRONG = [
    "",
    "pos",
    "https://",
    "https:///path",
    "ftp://pos.example",
    "javascript:alert(1)",
    "https://user@pos.example/",
    "https://user:password@pos.example/",
    "https://169.254.169.254/latest/meta-data?",
    "https://pos.example/v1/dead-letters/0/1/replay?x=1",
    "https://pos.example/#",
    "https://pos.example/a b",
    "https://pos.example/\n",
    "https://pos.example\n",
    "\nhttps://pos.example",
    "https://pos.example\t/",
    "https://pos\x00.example",
    "https://pos.example/\x1b[2J",
    "https://pos.example/\u202e",
    "https://b\u00fccher.example",
    "https://pos.example\\@evil.example",
    "https://pos..example",
    "https://pos.example:65536",
    "https://pos.example:x",
    "https://-pos.example",
    "https://[::1",
    "HTTPS://pos.example",
]


def is_valid(url: str) -> bool:
    """Return whether the type admits a URL."""
    try:
        msgspec.convert(url, PartyUrl)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("url", GOOD)
def test_a_url_of_scheme_host_and_path_is_taken(url: str) -> None:
    assert is_valid(url)
    assert party_url_problem(url, allow_http=True) == ""


@pytest.mark.parametrize("url", WRONG)
def test_a_url_with_anything_else_is_refused(url: str) -> None:
    assert not is_valid(url)
    assert "without user name, query and fragment" in party_url_problem(url, allow_http=True)


@given(st.from_regex(r"\Ahttps?://[ -~\n\x00]{0,40}\Z"))
@example("http://0/%")
def test_a_taken_url_keeps_its_host_and_path(url: str) -> None:
    if is_valid(url):
        joined = URL(url).joinpath("prepare")
        assert joined.path.endswith("/prepare")
        assert (joined.user, joined.password, joined.query_string, joined.fragment) == (None, None, "", "")
        assert joined.host == URL(url).host


@pytest.mark.parametrize("host", ["pos.example", "10.0.0.1", "127.0.0.1.evil.example", "localhost.example", "0.0.0.0"])
def test_http_is_for_this_machine_unless_it_is_allowed(host: str) -> None:
    assert "DABBAWALA_ALLOW_HTTP_PARTIES" in party_url_problem(f"http://{host}/x", allow_http=False)
    assert party_url_problem(f"https://{host}/x", allow_http=False) == ""
    assert party_url_problem(f"http://{host}/x", allow_http=True) == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9:80", "localhost", "[::1]:80"])
def test_http_is_allowed_on_this_machine(host: str) -> None:
    assert party_url_problem(f"http://{host}/x", allow_http=False) == ""
