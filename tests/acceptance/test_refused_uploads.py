"""A client that is refused while it still sends reads why, directly and through nginx."""

import http.client
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.acceptance.processes import (
    Service,
    process,
    reserved_port,
    service,
    wait_until_ready,
)
from tests.acceptance.world import API

pytestmark = pytest.mark.acceptance

TRIES = 50
UPLOAD = b"x" * 10_000_000
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
CONFIGURATION = """\
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    upstream opscore {{ server {upstream}; keepalive 4; keepalive_timeout 60s; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://opscore;
            proxy_set_header Host $host;
            {forwarding}
        }}
    }}
}}
"""
# As nginx is by default; with kept connections; passing the body on while it arrives.
FORWARDING = {
    "plain": "",
    "kept": 'proxy_http_version 1.1; proxy_set_header Connection "";',
    "unbuffered": (
        'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off;'
    ),
}


@pytest.fixture(scope="module")
def opscore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("uploads")) as running:
        yield running


@contextmanager
def nginx(folder: Path, upstream: str, forwarding: str) -> Iterator[str]:
    """The URL of an nginx in front of the service."""
    if NGINX is None:
        why = "nginx is not installed: what a client behind it sees is NOT tested."
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    # As root its workers become another user, who may not write here.
    user = "user root;" if os.geteuid() == 0 else ""
    with reserved_port() as port:
        configuration = folder / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                user=user,
                folder=folder,
                upstream=upstream,
                port=port,
                forwarding=FORWARDING[forwarding],
            )
        )
        command = (NGINX, "-c", str(configuration), "-p", str(folder), "-e", "stderr")
        with process("nginx", folder, *command) as running:
            wait_until_ready(f"http://127.0.0.1:{port}", running)
            yield f"http://127.0.0.1:{port}"


def upload(url: str, key: str) -> int:
    """The status that Python's own client reads; it sends all of the body before it looks."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", f"{API}/agents", UPLOAD, headers)
        answer = connection.getresponse()
        assert answer.read().startswith(b"{")
        return answer.status
    finally:
        connection.close()


@pytest.mark.fault("F111")
def test_upload_of_10_mb_reads_its_413_every_time(opscore: Service) -> None:
    assert [upload(opscore.url, opscore.key) for _ in range(TRIES)] == [413] * TRIES


@pytest.mark.fault("F111")
def test_upload_of_10_mb_without_a_key_reads_its_401_every_time(opscore: Service) -> None:
    assert [upload(opscore.url, "wrong") for _ in range(TRIES)] == [401] * TRIES


@pytest.mark.fault("F111")
@pytest.mark.parametrize("forwarding", FORWARDING)
def test_upload_of_10_mb_through_nginx_reads_its_413_every_time(
    opscore: Service, tmp_path: Path, forwarding: str
) -> None:
    with nginx(tmp_path, urlsplit(opscore.url).netloc, forwarding) as url:
        assert [upload(url, opscore.key) for _ in range(TRIES)] == [413] * TRIES
        # The connections that nginx keeps are still good.
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 200
