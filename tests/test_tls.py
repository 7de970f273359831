"""The scheduler verbs beyond 127.0.0.1: without a client certificate nothing answers."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
import trustme

from tests.conftest import Serving, Start
from tests.test_service_process import run


@dataclass(frozen=True)
class Keys:
    """An authority, a server's and a client's certificate, and a client's of another authority."""

    ca: Path
    server: Path
    client: Path
    stranger: Path

    def options(self) -> tuple[str, ...]:
        files = ("--tls-cert-file", self.server, "--tls-key-file", self.server, "--tls-client-ca-file", self.ca)
        return tuple(map(str, files))


def make_keys(folder: Path) -> Keys:
    """New ones in that folder; the server's is for 127.0.0.1."""
    authority = trustme.CA()
    keys = Keys(*(folder / name for name in ("ca.pem", "server.pem", "client.pem", "stranger.pem")))
    authority.cert_pem.write_to_path(keys.ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(keys.server)
    authority.issue_cert("kube-scheduler").private_key_and_cert_chain_pem.write_to_path(keys.client)
    trustme.CA().issue_cert("kube-scheduler").private_key_and_cert_chain_pem.write_to_path(keys.stranger)
    return keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def served(start_anywhere: Callable[[ExitStack], Start], cluster_file: Path, keys: Keys) -> Iterator[Serving]:
    with ExitStack() as stack:
        yield start_anywhere(stack)("--snapshot", str(cluster_file), "--host", "0.0.0.0", *keys.options())


def get(served: Serving, keys: Keys, certificate: Path | None) -> httpx.Response:
    context = ssl.create_default_context(cafile=keys.ca)
    if certificate is not None:
        context.load_cert_chain(certificate)
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.post(f"https://127.0.0.1:{served.port}/scheduler/filter", json={"Pod": {}, "NodeNames": []})


def test_a_client_with_a_certificate_is_answered(served: Serving, keys: Keys) -> None:
    assert get(served, keys, keys.client).status_code == 200


@pytest.mark.parametrize("who", ["nobody", "stranger"])
def test_without_one_nothing_answers(served: Serving, keys: Keys, who: str) -> None:
    with pytest.raises(httpx.TransportError):
        get(served, keys, keys.stranger if who == "stranger" else None)


def test_plain_http_is_not_answered(served: Serving) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{served.port}/healthz", trust_env=False)


@pytest.fixture(scope="module")
def elsewhere() -> str:
    """An address of this machine that others know it by. Nothing is sent: the route alone tells the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, which is nobody's
            found = str(probe.getsockname()[0])
        except OSError:  # no route
            found = "127.0.0.1"
    if ip_address(found).is_loopback:
        pytest.skip("this machine has no address but loopback ones")
    return found


def can_connect(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((address, port)) == 0


def test_by_default_others_cannot_even_connect(
    served: Serving, start: Start, cluster_file: Path, elsewhere: str
) -> None:
    by_default = start("--snapshot", str(cluster_file))
    assert can_connect("127.0.0.1", by_default.port)
    assert not can_connect(elsewhere, by_default.port)
    assert can_connect(elsewhere, served.port), "0.0.0.0 is that address too"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_open_listener_without_certificates_does_not_start(cluster_file: Path, host: str) -> None:
    ended = run("--snapshot", str(cluster_file), "--host", host, "--port", "0")
    assert ended.returncode == 2
    assert f"host: {host} can be reached from elsewhere: set tls-cert-file" in ended.stderr


def test_files_that_do_not_do_are_named(cluster_file: Path, keys: Keys, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    cases = {
        ("--tls-cert-file", str(keys.server)): "tls-key-file: must be set",
        (*keys.options(), "--tls-client-ca-file", str(empty)): f"tls-client-ca-file: {empty}: ",
        (*keys.options(), "--tls-key-file", str(tmp_path / "no")): "tls-cert-file, tls-key-file: ",
    }
    for options, sentence in cases.items():
        ended = run("--snapshot", str(cluster_file), "--port", "0", *options)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert sentence in ended.stderr
