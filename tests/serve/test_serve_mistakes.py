"""Mistakes of every kind over a real connection: each is one sentence, and the server lives on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from serve_tools import Client, serving

from lavolta.serve import app, bodies
from lavolta.serve.service import Service


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, 'give either "text" or "token_ids", and not both.'),
        ({"text": "a", "token_ids": [1]}, 'give either "text" or "token_ids", and not both.'),
        ({"texts": ["a"]}, "the field 'texts' is unknown; known are text, token_ids, type_ids, deadline_ms, truncate."),
        ({"text": 7}, '"text" is 7; give a string, or a list of two for a pair.'),
        ({"text": ["a", "b", "c"]}, '"text" is ["a", "b", "c"]; give a string, or a list of two for a pair.'),
        ({"text": " \t"}, '"text" has only white space; give at least one word.'),
        ({"text": "\ud800"}, '"text" has half a character at place 0; send whole ones.'),
        ({"text": "a cat " * 9}, "the text has 18 tokens and the model takes 16; shorten it, or send"),
        ({"text": ["a cat " * 4, "a cat " * 5]}, "the text has 18 tokens and the model takes 16; shorten it, or send"),
        ({"text": "a", "type_ids": [0]}, '"type_ids" belong to "token_ids"; leave them away beside a text.'),
        ({"text": "a", "truncate": 1}, '"truncate" is 1; give true or false.'),
        ({"text": "a", "deadline_ms": True}, "the deadline is true; give milliseconds above 0"),
        ({"text": "a", "deadline_ms": "9"}, 'the deadline is "9"; give milliseconds above 0'),
        ({"text": "a", "deadline_ms": 0}, "the deadline is 0; give milliseconds above 0"),
        ({"token_ids": []}, '"token_ids" has 0 tokens; give 1 to 16.'),
        ({"token_ids": [1] * 17}, '"token_ids" has 17 tokens; give 1 to 16.'),
        ({"token_ids": "1 2"}, '"token_ids" is "1 2"; give a list of whole numbers.'),
        ({"token_ids": [1, 8]}, '"token_ids" has 8 at place 1; give whole numbers 0 to 7.'),
        ({"token_ids": [-1]}, '"token_ids" has -1 at place 0; give whole numbers 0 to 7.'),
        ({"token_ids": [True]}, '"token_ids" has true at place 0; give whole numbers 0 to 7.'),
        ({"token_ids": [1.0]}, '"token_ids" has 1.0 at place 0; give whole numbers 0 to 7.'),
        ({"token_ids": [10**400]}, "at place 0; give whole numbers 0 to 7."),
        ({"token_ids": [1], "type_ids": [0]}, 'the model has no token types; leave "type_ids" away.'),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], sentence: str, client: Client, service: Service) -> None:
    status, kind, message = client.encode(**fields).error
    assert (status, kind) == (422, "invalid-input")
    assert sentence in message
    # The connection and the server live on.
    assert client.encode(text="a").status == 200
    assert service.recorder.totals().refused == {"busy": 0, "invalid": 1, "cancelled": 0, "failed": 0}


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"{oops", {}, (400, "malformed", "the body is not JSON: Expecting property name")),
        (b"", {}, (400, "malformed", "the body is not JSON: Expecting value")),
        (b"[1]", {}, (400, "malformed", "the body is no JSON object")),
        (b'{"text": "\xff"}', {}, (400, "malformed", "the body is not UTF-8 at byte 10")),
        (b'{"text": "a", "deadline_ms": NaN}', {}, (400, "malformed", "NaN is no number of JSON")),
        (b"[" * 60_000, {}, (400, "malformed", "the body is not JSON")),
        (b'{"token_ids": [' + b"9" * 5000 + b"]}", {}, (400, "malformed", "the body is not JSON")),
        (b"{}", {"content_type": "text/plain"}, (415, "not-json", "the content type is 'text/plain'")),
        (b"a" * (bodies.MAX_BYTES + 1), {}, (413, "too-large", "the body is larger than 65536 bytes")),
    ],
)
def test_a_wrong_body_is_named(
    body: bytes, headers: dict[str, str], expected: tuple[int, str, str], service: Service, tmp_path: Path
) -> None:
    with serving(service, tmp_path / "s.sock") as connect:
        with connect() as client:
            status, kind, message = client.ask("POST", "/v1/encode", body, **headers).error
        assert (status, kind) == expected[:2]
        assert expected[2] in message
        assert "\n" not in message
        with connect() as client:
            assert client.encode(text="a").status == 200


def test_a_body_in_parts_has_the_same_limit(client: Client) -> None:
    client.socket.sendall(
        b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    part = b"1000\r\n" + b" " * 4096 + b"\r\n"
    for _ in range(bodies.MAX_BYTES // 4096 + 1):
        client.socket.sendall(part)
    assert client.receive().error[:2] == (413, "too-large")


def test_a_body_that_does_not_come_is_not_waited_for(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "BODY_S", 0.05)
    with serving(service, tmp_path / "s.sock") as connect, connect() as client:
        client.socket.sendall(
            b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        )
        assert client.receive().error[:2] == (408, "too-slow")


def test_bytes_that_are_no_http_end_one_connection_only(service: Service, tmp_path: Path) -> None:
    with serving(service, tmp_path / "s.sock") as connect:
        for nonsense in (
            b"\x00\xff\r\n\r\n",
            b"GET / HTTP/1.1\r\nno header\r\n\r\n",
            b"POST /v1/encode HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        ):
            with connect() as client:
                client.socket.sendall(nonsense)
                assert client.receive().status == 400
        with connect() as client:
            assert client.encode(text="a").status == 200


def test_unknown_paths_and_methods_are_sentences(client: Client) -> None:
    status, kind, message = client.get("/v2/encode").error
    assert (status, kind) == (404, "not-found")
    assert message.startswith("there is nothing at /v2/encode;")
    reply = client.get("/v1/encode")
    assert reply.error == (405, "wrong-method", "GET is not for /v1/encode; use POST.")
    assert reply.headers["allow"] == "POST"
    assert client.post("/v1/status", {}).error[:2] == (405, "wrong-method")
    # Paths outside are not files.
    assert client.get("/../../etc/passwd").status == 404


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(service: Service, tmp_path: Path) -> None:
    with serving(service, tmp_path / "s.sock") as connect:
        with connect() as client:
            client.socket.sendall(
                b"POST /v1/encode HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
            )
            client.socket.shutdown(socket.SHUT_RDWR)
        with connect() as client:
            assert client.encode(text="a").data["index"] == 0
