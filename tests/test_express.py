"""The short way of an order: written at once, answered whole or in doubt, whatever a server does; real sockets."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.venues import express, net
from llm_maker.venues.express import Express
from llm_maker.venues.net import Http, Outcome, Pace

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LATE = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nRetry-After: 9\r\n\r\n"
Script = Callable[["Talk"], Awaitable[None]]


def paced(speed: float = 1.0) -> Pace:
    began = time.monotonic_ns()
    return Pace(lambda: round((time.monotonic_ns() - began) * speed), speed)


class Talk:
    """One connection as the server sees it; `number` counts them from 0."""

    def __init__(self, reader, writer, number, heard):
        self.reader, self.writer, self.number, self.heard = reader, writer, number, heard

    async def request(self):
        """The next request: its head and body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        sized = [line for line in head.split("\r\n") if line.lower().startswith("content-length:")]
        body = await self.reader.readexactly(int(sized[0].split(":")[1])) if sized else b""
        self.heard.append((self.number, head.split(" ", 1)[0], body))
        return head, body

    async def say(self, answer, cuts=()):
        """The bytes in pieces that the client reads one by one: it lives in this very loop."""
        places = [0, *sorted(cuts), len(answer)]
        for begin, end in pairwise(places):
            self.writer.write(answer[begin:end])
            await asyncio.sleep(0)
            await asyncio.sleep(0)


class Server:
    def __init__(self, script, tls=None):
        self.script, self.tls, self.talks, self.heard, self.ended = script, tls, [], [], 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc):
        self._server.close()
        for talk in self.talks:
            talk.writer.transport.abort()

    async def _talk(self, reader, writer):
        talk = Talk(reader, writer, len(self.talks), self.heard)
        self.talks.append(talk)
        with suppress(asyncio.IncompleteReadError, OSError):
            await self.script(talk)
        self.ended += 1
        writer.transport.abort()


async def always(talk, answer=OK):
    while True:
        await talk.request()
        await talk.say(answer)


def saying(*answers, cuts=()):
    """Each connection gives the answers in turn, the last one for ever; None: it closes."""

    async def script(talk):
        waiting = list(answers)
        while True:
            await talk.request()
            answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            if answer is None:
                return
            await talk.say(answer, [cut for cut in cuts if cut < len(answer)])

    return script


@asynccontextmanager
async def reached(script, *, speed=1.0, timeout=5.0, connections=16):
    async with Server(script) as server:
        made = Express(f"http://127.0.0.1:{server.port}", paced(speed), timeout=timeout, connections=connections)
        try:
            yield server, made
        finally:
            await made.close()


async def until(condition, limit_s=10.0):
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.001)


def post(made, body=b"{}", **more):
    return made.send("POST", "/order", body=body, headers={"POLY_KEY": "k"}, **more)


def answer(status, body=b"", **headers):
    told = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status} Word", f"Content-Length: {len(body)}", *told, "", ""]).encode() + body


# At once.


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_request_is_with_the_operating_system_when_send_returns(loop):
    async def run():
        listening = socket.create_server(("127.0.0.1", 0))
        made = Express(f"http://127.0.0.1:{listening.getsockname()[1]}/base", paced())
        await made.warm()
        taken = [listening.accept()[0] for _ in range(express.WARM)]
        answered = post(made, b'{"a":1}')
        # No await since: what is read here was written by `send` itself.
        got = b""
        for each in taken:
            each.setblocking(False)
            try:
                got += each.recv(65_536)
            except BlockingIOError:
                continue
        head, body = got.split(b"\r\n\r\n")
        assert head.split(b"\r\n") == [
            b"POST /base/order HTTP/1.1",
            b"Host: 127.0.0.1:%d" % listening.getsockname()[1],
            b"Accept: */*",
            b"Accept-Encoding: identity",
            b"POLY_KEY: k",
            b"Content-Type: application/json",
            b"Content-Length: 7",
        ]
        assert body == b'{"a":1}' and not answered.done()
        await made.close()
        assert (await answered).outcome is Outcome.UNKNOWN
        for each in (*taken, listening):
            each.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def test_connections_are_kept_and_never_more_than_allowed():
    busy, most = 0, 0

    async def script(talk):
        nonlocal busy, most
        while True:
            _, body = await talk.request()
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.002)
            busy -= 1
            await talk.say(answer(200, body))

    async with reached(script, connections=4) as (server, made):
        bodies = [b"%d" % number for number in range(20)]
        for _ in range(3):
            replies = await asyncio.gather(*(post(made, body) for body in bodies))
            assert [reply.body for reply in replies] == bodies, "each gets its own answer"
        assert len(server.talks) == most == 4
        one_by_one = [(await post(made, body)).body for body in bodies]
        assert one_by_one == bodies and len(server.talks) == 4


# What an answer means.

STATUSES = [200, 201, 204, 301, 304, 400, 401, 403, 404, 408, 422, 425, 429, 499, 500, 502, 503, 520]
HEADERS = [{}, {"Retry_After": "3"}, {"Retry_After": "soon"}, {"Retry_After": "nan"}, {"Poly_RateLimit_Remaining": "7.5"}]
BODIES = [b"", b"{}", b'{"error":"no","code":7,"retry_after_seconds":2}', b"[1]", b"\xff plain", b"<html>"]


async def test_every_status_means_what_it_means_to_the_other_client():
    said = [
        (status, answer(status, b"" if status in (204, 304) else body, **headers))
        for status in STATUSES
        for headers in HEADERS
        for body in BODIES
    ]
    async with reached(saying(*(text for _, text in said))) as (server, made):
        other = Http(f"http://127.0.0.1:{server.port}", paced())
        try:
            for status, text in said:
                ours, theirs = await post(made), await other.request("POST", "/order", body=b"{}")
                assert ours == theirs, text
                assert ours.status == status
        finally:
            await other.close()
        assert len(server.talks) == 2


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_answer_may_come_in_any_pieces(data):
    body = data.draw(st.binary(max_size=40), "body")
    framing = data.draw(st.sampled_from(["length", "chunks", "close"]), "framing")
    head = b"HTTP/1.1 400 Bad\r\nX-Empty:\r\npoly-ratelimit-remaining: 5\r\n"
    if framing == "length":
        told = head + b"CONTENT-length: %d\r\n\r\n" % len(body) + body
    elif framing == "chunks":
        size = data.draw(st.integers(1, 9), "size")
        pieces = [body[at : at + size] for at in range(0, len(body), size)] + [b""]
        trailer = data.draw(st.sampled_from([b"", b"Retry-After: 5\r\n"]), "trailer")
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        told = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks[:-2] + trailer + b"\r\n"
    else:
        told = head + b"\r\n" + body
    told = LATE * data.draw(st.integers(0, 2), "interim") + told
    cuts = data.draw(st.one_of(st.just(range(1, len(told))), st.lists(st.integers(1, len(told)), max_size=6)), "cuts")

    async def script(talk):
        while True:
            await talk.request()
            await talk.say(told, cuts)
            if framing == "close":
                talk.writer.write_eof()
                return

    async def run():
        async with reached(script) as (server, made):
            for _ in range(3):
                reply = await post(made)
                assert (reply.outcome, reply.status, reply.body) == (Outcome.REFUSED, 400, body)
                assert (reply.remaining, reply.retry_after) == (5.0, None), "neither of an interim answer, nor of a trailer"
            assert len(server.talks) == (3 if framing == "close" else 1)

    asyncio.run(run())


# In doubt.


@pytest.mark.parametrize("whole", [OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"])
async def test_an_answer_cut_off_anywhere_is_unknown(whole):
    async def script(talk):
        await talk.request()
        await talk.say(whole[: talk.number])
        if talk.number % 2:
            talk.writer.write_eof()
            await talk.reader.read()

    async with reached(script) as (server, made):
        for length in range(len(whole)):
            reply = await post(made)
            assert reply.outcome is Outcome.UNKNOWN and reply.error, whole[:length]
        assert [number for number, _, _ in server.heard] == list(range(len(whole))), "each was sent once"


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00\x01\x02",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" * 4_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + b"x" * 70_000,
    ],
    ids=lambda text: repr(text[:60]),
)
async def test_rubbish_is_unknown_and_its_connection_is_not_used_again(rubbish):
    async def script(talk):
        await talk.request()
        await talk.say(rubbish if talk.number == 0 else OK)
        await talk.reader.read()

    async with reached(script) as (server, made):
        reply = await post(made)
        assert reply.outcome is Outcome.UNKNOWN and reply.error
        assert (await post(made)).ok and len(server.talks) == 2


@pytest.mark.parametrize(
    "text",
    [
        OK + OK,
        OK + b"rubbish",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_a_whole_answer_counts_but_its_connection_is_given_up(text):
    async def script(talk):
        await talk.request()
        await talk.say(text)
        await talk.reader.read()

    async with reached(script) as (server, made):
        for _ in range(3):
            reply = await post(made)
            assert reply.ok and reply.body == b"{}"
        assert len(server.talks) == 3
        await until(lambda: server.ended == 3)


async def test_words_that_nobody_asked_for_are_no_answer_to_the_next_request():
    async def script(talk):
        await talk.request()
        await talk.say(OK)
        if talk.number == 0:
            await talk.say(answer(400, b'{"error":"early"}'))
        await talk.request()
        await talk.say(OK)

    async with reached(script) as (server, made):
        assert (await post(made)).ok
        await until(lambda: not made._idle)
        assert (await post(made)).ok and len(server.talks) == 2


async def test_silence_is_unknown_in_time_and_its_connection_is_given_up():
    async def script(talk):
        await talk.request()
        if talk.number:
            await talk.say(OK)
        await talk.reader.read()

    async with reached(script, speed=50.0) as (server, made):
        reply = await post(made)
        assert reply.outcome is Outcome.UNKNOWN and reply.error == "no answer within 5s"
        assert (await post(made)).ok and len(server.talks) == 2


async def test_a_body_over_the_limit_is_cut_as_the_other_client_cuts_it(monkeypatch):
    for module in (express, net):
        monkeypatch.setattr(module, "MAX_BODY", 100)
    async with reached(saying(answer(400, b"x" * 300), answer(200, b"y" * 300_000), answer(200, b"z" * 100))) as (server, made):
        other = Http(f"http://127.0.0.1:{server.port}", paced())
        for _ in range(3):
            ours, theirs = await post(made), await other.request("POST", "/order", body=b"{}")
            assert ours == theirs and len(ours.body) == 100
        await other.close()


# Connections that end.


async def test_an_order_is_written_once_even_where_a_kept_connection_dies_under_it():
    async with reached(saying(OK, None)) as (server, made):
        assert (await post(made)).ok
        reply = await post(made)
        assert reply.outcome is Outcome.UNKNOWN
        assert len(server.heard) == 2 and len(server.talks) == 1


@pytest.mark.parametrize("method", ["DELETE", "GET"])
async def test_what_may_be_said_twice_is_said_once_more_and_no_third_time(method):
    async def script(talk):
        await talk.request()
        if talk.number < 2:
            await asyncio.sleep(0.1)  # until the other request has a connection of its own
            await talk.say(OK)
            await talk.request()  # dies under the second one

    async with reached(script) as (server, made):
        first = [made.send(method, "/order", headers={}) for _ in range(2)]
        assert all(reply.ok for reply in await asyncio.gather(*first)), "two kept connections"
        reply = await made.send(method, "/order", headers={})
        assert reply.outcome is Outcome.UNKNOWN and reply.error
        assert len(server.heard) == 4, "once more on the other kept one, which died too"

    async with reached(saying(OK, None)) as (server, made):
        assert (await made.send(method, "/order", headers={})).ok
        reply = await made.send(method, "/order", headers={})
        assert reply.ok and len(server.heard) == 3 and len(server.talks) == 2


async def test_a_connection_closed_between_two_requests_is_simply_replaced():
    async def script(talk):
        await talk.request()
        await talk.say(OK)

    async with reached(script) as (server, made):
        for number in range(1, 4):
            assert (await post(made)).ok
            await until(lambda: not made._idle)
            assert len(server.talks) == number


async def test_nobody_there_is_unsent():
    probe = socket.create_server(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    made = Express(f"http://127.0.0.1:{port}", paced(), connections=2)
    await made.warm()
    replies = await asyncio.gather(*(post(made) for _ in range(5)))
    assert {reply.outcome for reply in replies} == {Outcome.UNSENT} and all(reply.error for reply in replies)
    await made.close()


async def test_what_waits_for_a_connection_too_long_never_leaves():
    async def script(talk):
        await talk.request()
        await talk.reader.read()

    async with reached(script, speed=50.0, connections=1) as (server, made):
        first, second = post(made), post(made, b"never", timeout=2.0)
        assert (await second).outcome is Outcome.UNSENT and not first.done()
        assert (await first).outcome is Outcome.UNKNOWN
        assert [body for _, _, body in server.heard] == [b"{}"]


async def test_what_nobody_waits_for_any_more_never_leaves_and_takes_no_answer_of_others():
    go = asyncio.Event()

    async def script(talk):
        while True:
            _, body = await talk.request()
            await go.wait()
            await talk.say(answer(200, body))

    async with reached(script, connections=1) as (server, made):
        given_up, dropped, wanted = post(made, b"1"), post(made, b"2"), post(made, b"3")
        await until(lambda: server.heard)
        given_up.cancel()
        dropped.cancel()
        go.set()
        assert (await wanted).body == b"3"
        assert [body for _, _, body in server.heard] == [b"1", b"3"] and len(server.talks) == 1


async def test_closing_tells_what_waits_from_what_is_in_flight():
    async def script(talk):
        await talk.request()
        await talk.reader.read()

    async with reached(script, connections=1) as (server, made):
        first, second = post(made), post(made)
        await until(lambda: server.heard)
        await made.close()
        assert [(await each).outcome for each in (first, second)] == [Outcome.UNKNOWN, Outcome.UNSENT]
        await until(lambda: server.ended == 1)


async def test_idle_connections_are_closed_in_time_and_warm_ones_replaced():
    async with reached(always, speed=1_000.0) as (server, made):
        await asyncio.gather(*(post(made, timeout=500.0) for _ in range(3)))
        # At this speed a connection may have been idle for long before the last request asks for one.
        await until(lambda: server.ended == len(server.talks) and not made._all)
        used = len(server.talks)
        assert 1 <= used <= 3 and made._sweeping is None
        await made.warm()
        await until(lambda: server.ended >= used + express.WARM and len(made._idle) == express.WARM)
        assert (await post(made, timeout=500.0)).ok


async def test_what_no_request_may_hold_is_unsent():
    async with reached(always) as (server, made):
        for name, value in (("A", "b\r\nX: y"), ("A\n", "b"), ("A", "\udcff")):
            reply = await made.send("POST", "/order", body=b"", headers={name: value})
            assert reply.outcome is Outcome.UNSENT and reply.error
        assert not server.heard


# Encrypted.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a self-signed certificate of `localhost`."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([openssl, *made, *named], check=True, capture_output=True)
    return key, cert


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_encrypted_only_with_a_certificate_that_is_right(certificate, monkeypatch, loop):
    key, cert = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    chosen = []

    async def script(talk):
        chosen.append(talk.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await always(talk)

    async def run():
        async with Server(script, context) as server:
            untrusted = Express(f"https://localhost:{server.port}", paced())
            assert (await post(untrusted)).outcome is Outcome.UNSENT
            monkeypatch.setenv("SSL_CERT_FILE", str(cert))
            misnamed = Express(f"https://127.0.0.1:{server.port}", paced())
            assert (await post(misnamed)).outcome is Outcome.UNSENT
            assert not chosen and not server.heard
            made = Express(f"https://localhost:{server.port}", paced())
            await made.warm()
            for body in (b"1", b"22"):
                assert (await post(made, body)).ok
            assert [body for _, _, body in server.heard] == [b"1", b"22"] and set(chosen) == {"http/1.1"}
            for each in (untrusted, misnamed, made):
                await each.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())
