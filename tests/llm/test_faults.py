"""What all clients share of failures: keys out of every text, Retry-After in both forms, a status as one of our kinds."""

import time

import pytest

from llm_maker.llm.apis import faults
from llm_maker.llm.providers import ProviderError


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (" 0.5 ", 0.5), ("Sat, 21 Nov 2026 12:00:10 GMT", 10.0), ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0), ("", None),
     (None, None), ("soon", None), ("-3", None), ("1e9", None), ("٣", None), ("nan", None), ("999999999", 604_800.0),
     ("Sat, 99 Nov 99999999999999999999 12:00:10 GMT", None)],
)  # fmt: skip
def test_retry_after(header, seconds):
    assert faults.retry_after_s(header, 1_795_262_400.0) == seconds  # 2026-11-21 12:00 UTC


def test_redaction_takes_masked_and_foreign_keys_too():
    said = "bad key sk-abcd***wxyz, Bearer abc.def, mykey-0123, na***ys, AIzaSyA1234567890, key=mykey%2d0123"
    text = faults.redact(said, "mykey-0123")
    for part in ("wxyz", "abc.def", "mykey-0123", "AIza", "na*", "ys,"):
        assert part not in text
    assert faults.redact("risk-adjusted key-driver", "") == "risk-adjusted key-driver"
    assert faults.without("EMPTY none exit", "none") == "EMPTY none exit", "too short to be a secret"
    assert faults.without("a/b+c/d+e/f in a URL: a%2Fb%2Bc%2Fd%2Be%2Ff", "a/b+c/d+e/f") == "*** in a URL: ***"
    assert "secret-0" not in faults.safe("x" * 295 + "secret-0123456", "secret-0123456"), "a cut leaves no half of a key"
    assert "secret" not in faults.safe("ｓecret-0123456 \x1b[31m", "secret-0123456"), "nor does folding make one"


@pytest.mark.parametrize("piece", ["a", "*", "sk-", "aaa***", "Bearer ", "Bearer"])
def test_no_text_takes_long_to_redact(piece):
    began = time.process_time()
    faults.safe(piece * (faults.MAX_REFUSAL_BYTES // len(piece)), "secret-0123456")
    assert time.process_time() - began < 2.0, "a search that looks back over all that it has seen takes a minute here"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, None, "auth"), (403, "anything", "auth"), (402, None, "billing"), (429, None, "rate_limit"),
        (429, "rate_limit_exceeded", "rate_limit"), (429, "insufficient_quota", "billing"),
        (429, "billing_hard_limit_reached", "billing"), (408, None, "timeout"), (500, None, "overload"), (529, None, "overload"),
        (400, None, "bad_request"), (400, "API_KEY_INVALID", "auth"), (404, "api_key", "bad_request"), (307, None, "bad_request"),
        (410, None, "bad_request"), (413, None, "bad_request"), (422, None, "bad_request"),
    ],
)  # fmt: skip
def test_a_status_as_a_kind(status, code, kind):
    assert faults.kind_of(status, code) == kind


def test_a_refusal_tells_its_status_and_its_delay_and_no_key():
    error = faults.refused(503, "busy, secret-0123456", code=None, secret="secret-0123456", retry_after="9")
    assert (error.kind, error.detail, error.retry_after_s, error.maybe_billed) == ("overload", "HTTP 503: busy, ***", 9.0, False)


def test_connecting_ends_before_the_deadline_does():
    for deadline_s in (0.0, 0.3, 3.0, 30.0, 600.0):
        timeout = faults.timeouts(deadline_s)
        assert timeout.connect < timeout.read and timeout.connect <= faults.CONNECT_S


def test_a_key_that_can_stand_in_a_header():
    for key in ("", "sk-abc_DEF-123.~"):
        faults.checked_key(key)
    for key in (" sk-abc", "sk-abc\n", "“sk-abc”", "sk abc", "sk\x00"):
        with pytest.raises(ProviderError, match="auth") as caught:
            faults.checked_key(key)
        assert "abc" not in str(caught.value)
