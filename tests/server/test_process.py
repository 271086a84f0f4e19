"""The server as a process: start, refusal to start, TLS, end."""

from __future__ import annotations

import socket
import sqlite3
import ssl
import stat

import httpx
import pytest

from protocol.crypto.certificates import make_self_signed, pin_of_certificate
from protocol.http_api import HealthResponse
from tests.server.client import Client, some_block
from tests.server.people import Person
from tests.server.running import run_command, running_process, running_server
from tests.server.slow_upload import SlowUpload


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path):
    person, data = Person(), tmp_path / "data"
    with running_process(data) as running, Client(running.url) as client:
        client.register(person)
        record = person.device.record(person.namespace.id)
        assert client.commit(person.namespace.id, record).results[0].position == 1
        running.process.kill()
        running.process.wait()
    with running_process(data) as running, Client(running.url) as client:
        client.log_in(person.device)
        again = client.commit(person.namespace.id, record)
        assert again.results[0].position == 1


def test_the_data_directory_is_private_and_has_one_server(tmp_path):
    data = tmp_path / "data"
    with running_process(data):
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        for path in data.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        second = run_command("--data", str(data), "--listen", "127.0.0.1:0")
        assert second.returncode == 1
        assert "another server uses" in second.stderr
        assert "Traceback" not in second.stderr


def test_an_address_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = run_command("--data", str(tmp_path / "data"), "--listen", address)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"atoll server: can not listen on {address}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen", "nonsense"], "--listen takes HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "--listen takes HOST:PORT"),
        (["--database", "postgres://x/y"], "sqlite:///ABSOLUTE/PATH"),
        (["--blobs", "s3://bucket"], "file:///ABSOLUTE/PATH"),
        (["--certificate", "x.pem"], "go together"),
        (["--certificate", "/nix", "--key", "/nix"], "can not be read"),
        (["--token-lifetime-s", "0"], "at least 1"),
        (["--request-burst", "0"], "above 0"),
    ],
)
def test_settings_that_make_no_sense_end_in_a_sentence(tmp_path, arguments, sentence):
    refused = run_command("--data", str(tmp_path / "data"), *arguments)
    assert refused.returncode == 1
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_wrong_usage_exits_with_2():
    assert run_command("--nonsense").returncode == 2
    assert "example:" in run_command("--help").stdout


def test_a_schema_from_the_future_ends_in_a_sentence(tmp_path):
    data = tmp_path / "data"
    assert run_command("invite", "--data", str(data)).returncode == 0
    connection = sqlite3.connect(data / "server.db")
    connection.execute("PRAGMA user_version = 77")
    connection.close()
    refused = run_command("--data", str(data), "--listen", "127.0.0.1:0")
    assert refused.returncode == 1
    assert "schema 77" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_stores_may_lie_elsewhere(tmp_path):
    database, blobs = tmp_path / "elsewhere.db", tmp_path / "blobs"
    with running_server(tmp_path, database=f"sqlite://{database}", blobs=f"file://{blobs}") as url:
        assert httpx.get(url + "/readyz").is_success
    assert database.exists()
    assert blobs.is_dir()
    assert not (tmp_path / "server" / "server.db").exists()


def test_off_loopback_the_server_speaks_tls_with_the_pin_that_it_prints(tmp_path):
    with running_process(tmp_path / "data", listen="0.0.0.0:0") as running:
        address, _, pin = running.url.partition("#sha256=")
        port = httpx.URL(address).port
        assert address.startswith("https://")
        assert port is not None
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
            context.wrap_socket(raw) as secure,
        ):
            assert secure.version() == "TLSv1.3"
            certificate = secure.getpeercert(binary_form=True)
        assert pin_of_certificate(certificate or b"").hex() == pin
        with Client(f"https://127.0.0.1:{port}") as client:
            client.http = httpx.Client(base_url=client.url, verify=context)
            assert client.challenge("a@b.org").server_id.hex() == pin
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")
    with running_process(tmp_path / "data", listen="0.0.0.0:0") as again:
        assert again.url.partition("#sha256=")[2] == pin


def test_a_certificate_of_the_operator_is_used(tmp_path):
    certificate, key = make_self_signed(["localhost"])
    (tmp_path / "c.pem").write_bytes(certificate)
    (tmp_path / "k.pem").write_bytes(key)
    with running_server(tmp_path, certificate=tmp_path / "c.pem", key=tmp_path / "k.pem") as url:
        expected = pin_of_certificate(ssl.PEM_cert_to_DER_cert(certificate.decode())).hex()
        assert url.startswith("https://127.0.0.1:")
        assert url.endswith(f"#sha256={expected}")
    mixed = run_command(
        *("--data", str(tmp_path / "other"), "--listen", "127.0.0.1:0"),
        *("--certificate", str(tmp_path / "c.pem"), "--key", str(tmp_path / "c.pem")),
    )
    assert mixed.returncode == 1
    assert "can not be loaded" in mixed.stderr


def test_a_missing_key_is_not_replaced_in_silence(tmp_path):
    data = tmp_path / "data"
    with running_process(data):
        pass
    (data / "key.pem").unlink()
    refused = run_command("--data", str(data), "--listen", "127.0.0.1:0")
    assert refused.returncode == 1
    assert "key.pem is missing" in refused.stderr


def test_requests_under_way_end_before_the_server_does(tmp_path):
    person, data, block = Person(), tmp_path / "data", some_block(800_000)
    with running_process(data) as running, Client(running.url) as client:
        client.register(person)
        path = f"/v1/namespaces/{person.namespace.id}/blocks/{block.id}"
        upload = SlowUpload(client, path, len(block.frame))
        upload.send(block.frame[:700_000])
        while not any((data / "blobs" / "incoming").iterdir()):
            assert client.call(HealthResponse, "GET", "/healthz").ok
        running.process.terminate()
        while _accepts(running.url):
            pass
        upload.send(block.frame[700_000:])
        assert upload.answer()[0] == 200
        assert running.stop() == 0
    with running_process(data) as running, Client(running.url) as client:
        client.log_in(person.device)
        assert client.request("GET", path).content == block.frame


def _accepts(url):
    try:
        return httpx.get(url + "/healthz").is_success
    except httpx.HTTPError:
        return False


def test_collecting_says_what_it_gave_up_and_needs_the_server_stopped(tmp_path):
    person, data = Person(), tmp_path / "data"
    kept, stray = some_block(5000), some_block(6000)
    with running_process(data) as running, Client(running.url) as client:
        client.register(person)
        for block in (kept, stray):
            client.put_block(person.namespace.id, block)
        client.commit(
            person.namespace.id, person.device.record(person.namespace.id, blocks=(kept.id,))
        )
        held = run_command("collect", "--data", str(data))
        assert held.returncode == 1
        assert "another server uses" in held.stderr
    with sqlite3.connect(data / "server.db") as database:
        database.execute("UPDATE blocks SET lease_until_s = 1")
    collected = run_command("collect", "--data", str(data))
    assert collected.returncode == 0, collected.stderr
    assert "gave up 1 blocks" in collected.stdout
    assert len([path for path in (data / "blobs").rglob("*") if path.is_file()]) == 1
    assert "gave up 0 blocks" in run_command("collect", "--data", str(data)).stdout
