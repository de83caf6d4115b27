"""The page behind a reject link, before anybody knows whether its token is good."""

from collections.abc import Iterator

import pytest

from tests.support.live import LiveDaemon


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    """One daemon for all tests: none of them leaves anything behind."""
    started = LiveDaemon(tmp_path_factory.mktemp("reject") / "home")
    yield started
    started.stop()


@pytest.mark.parametrize(
    "token", ["a" * 8000, "%E2%82%AC%F0%9F%98%80", "%0d%0aSet-Cookie:x", "<script>", "' OR 1=1 --", "a?x=1", "a/"]
)
def test_a_token_that_nobody_issued_is_a_page_that_repeats_nothing_of_it(shared: LiveDaemon, token: str) -> None:
    answers = [shared.anonymous.get(f"/reject/{token}"), shared.anonymous.post(f"/reject/{token}")]
    for answer in answers:
        assert answer.status_code == 410
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers
    assert answers[0].text == answers[1].text == shared.anonymous.get("/reject/unknown").text


@pytest.mark.parametrize("path", ["..%2f..%2fetc", "%00", "%ff", "a/b", "", "/a"])
def test_what_is_no_token_leads_nowhere(shared: LiveDaemon, path: str) -> None:
    assert shared.anonymous.get(f"/reject/{path}").status_code == 404
    assert shared.anonymous.post(f"/reject/{path}").status_code == 404


def test_a_page_under_no_referrer_may_post_its_form_and_a_foreign_host_name_may_not(shared: LiveDaemon) -> None:
    form = {"Origin": "null", "Content-Type": "application/x-www-form-urlencoded"}
    assert shared.anonymous.post("/reject/a", headers=form, content="x=1").status_code == 410
    assert shared.anonymous.post("/reject/a", headers={"Content-Type": "text/plain"}, content="x=1").status_code == 400
    assert shared.anonymous.get("/reject/a", headers={"Host": "evil.example"}).json()["code"] == "HOST_NOT_ALLOWED"
