"""Who does not know the address, or asks from elsewhere, learns nothing; nothing sent breaks it."""

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_hpc.errors import UserError
from lens_hpc.grading import grade_book
from lens_hpc.grading.grade_book import GradeBook
from lens_hpc.grading.grade_files import read_lines
from lens_hpc.grading.grading_folder import Grading
from lens_hpc.grading.server import GradingServer
from lens_hpc.grading.shown_items import ShownItems
from lens_hpc.layout import grades_file

JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body)


class Browser:
    """Asks one server, within its token unless the path begins with a slash."""

    def __init__(self, server: GradingServer) -> None:
        self.server = server
        self.port = server.http.port

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        if not path.startswith("/"):
            path = f"/{self.server.token}/{path}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return Answer(answer.status, dict(answer.getheaders()), content)

    def grade(self, grades: Any, headers: dict[str, str] = JSON) -> Answer:
        return self.ask("grade", "POST", json.dumps(grades).encode(), headers)


@pytest.fixture(scope="module")
def browser(grading_once: Grading, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = shutil.copytree(grading_once.folder, tmp_path_factory.mktemp("served") / "grading")
    book = GradeBook(folder, grading_once.record.fingerprint)
    server = GradingServer(ShownItems(grading_once), book)
    thread = threading.Thread(target=server.http.serve_forever, args=[0.01], daemon=True)
    thread.start()
    yield Browser(server)
    server.http.shutdown()
    thread.join()


@pytest.fixture(autouse=True)
def syncs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


def lines_of(browser: Browser, grader: str) -> list[str]:
    file = grades_file(browser.server.book.folder, grader)
    return [line.item for line in read_lines(file, browser.server.items.record.fingerprint)]


# ---- what is served ----


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", "text/html; charset=utf-8"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("page.css", "text/css; charset=utf-8"),
        ("grading.json", "application/json"),
        ("items.json?start=0&count=3", "application/json"),
        ("grades.json?grader=anna", "application/json"),
        ("sheet.png?start=0&count=3&size=16&view=log", "image/png"),
        ("cutout/i000049.png?view=sqrt&size=32", "image/png"),
    ],
)
def test_everything_that_the_page_needs_is_there(path: str, kind: str, browser: Browser) -> None:
    answer = browser.ask(path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == kind
    assert len(answer.body) > 10
    kept = "private, max-age=3600" if kind == "image/png" else "no-store"
    assert answer.headers["Cache-Control"] == kept
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src")
    assert answer.headers["Server"] == "lens-hpc"


def test_items_are_asked_for_in_stretches(browser: Browser) -> None:
    items = browser.ask("items.json?start=48&count=1000").json["items"]
    assert [item["item"] for item in items] == ["i000048", "i000049"]
    assert browser.ask("items.json?start=50").json == {"items": []}
    assert browser.ask("grading.json").json["total"] == 50


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("items.json?count=1001", "count: must be from 1 to 1000"),
        ("items.json?start=-1", "start: must be a whole number"),
        ("items.json?start=1e3", "start: must be a whole number"),
        ("items.json?start=" + "9" * 30, "start: must be a whole number"),
        ("items.json?start=" + quote("٣"), "start: must be a whole number"),
        ("sheet.png?size=0", "size: must be from 1 to 192"),
        ("sheet.png?count=501", "count: must be from 1 to 500"),
        ("sheet.png?view=none", "view: must be one of asinh, log, sqrt, g, r"),
        ("cutout/i000001.png?size=100000", "size: must be from 1 to 2048"),
        ("cutout/i000001.png?view=<script>", "view: must be one of asinh, log, sqrt, g, r"),
        ("grades.json", "grader: must have letters, digits, _ . and -, up to 50"),
        ("grades.json?grader=../../etc", "grader: must have letters, digits, _ . and -, up to 50"),
    ],
)
def test_what_makes_no_sense_is_told(path: str, told: str, browser: Browser) -> None:
    answer = browser.ask(path)
    assert (answer.status, answer.json) == (400, {"error": told})


# ---- who may not ask ----


def refused(answer: Answer) -> bool:
    told = set(answer.headers) - {"Date", "Server", "Connection", "Content-Length", "Content-Type"}
    policies = {"Referrer-Policy", "X-Content-Type-Options", "Cache-Control"}
    assert told == {*policies, "Content-Security-Policy"}
    return (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/favicon.ico",
        "/grading.json",
        "/wrong/",
        "/wrong/grading.json",
        "/TOKEN",
        "/TOKENX/",
        "/TOKE/",
        "/../TOKEN/",
        "/TOKEN//",
        "/TOKEN/other",
        "/TOKEN/page.html",
        "/TOKEN/../TOKEN/",
        "/TOKEN/%2e%2e/items.parquet",
        "/TOKEN/../../etc/passwd",
        "/TOKEN/cutout/../page.js",
        "/TOKEN/cutout/i000050.png",
        "/TOKEN/cutout/i000001",
        "/TOKEN/cutout/i000001.png.png",
        "/%C3%A9/",
        "/%FF/",
        "http://127.0.0.1.evil.example/TOKEN/",
    ],
)
def test_every_other_path_gets_nothing(path: str, browser: Browser) -> None:
    token = browser.server.token
    target = path.replace("TOKEN", token).replace("TOKE", token[:-1])
    connection = http.client.HTTPConnection("127.0.0.1", browser.port, timeout=60)
    connection.putrequest("GET", target)
    connection.endheaders()
    answer = connection.getresponse()
    assert refused(Answer(answer.status, dict(answer.getheaders()), answer.read()))
    connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:PORT"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "127.0.0.1.evil.example:PORT"},
        {"Host": ""},
    ],
)
def test_another_site_gets_nothing_and_grades_nothing(
    headers: dict[str, str], browser: Browser
) -> None:
    own = {name: value.replace("PORT", str(browser.port)) for name, value in headers.items()}
    for path in ("", "grading.json", "cutout/i000000.png"):
        assert refused(browser.ask(path, headers=own))
    stranger = {"item": "i000000", "grader": "stranger", "grade": "A"}
    assert refused(browser.grade(stranger, JSON | own))
    assert not grades_file(browser.server.book.folder, "stranger").exists()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_get_nothing(method: str, browser: Browser) -> None:
    assert refused(browser.ask("grade", method))
    assert refused(browser.ask("", method))
    assert refused(browser.ask("grading.json", "POST"))
    assert refused(browser.ask("grade"))


def test_the_page_itself_may_ask_by_either_name(browser: Browser) -> None:
    for host in (f"127.0.0.1:{browser.port}", f"localhost:{browser.port}"):
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert browser.ask("grading.json", headers=headers).status == 200
    assert browser.ask("", headers={"Sec-Fetch-Site": "none"}).status == 200


def test_only_this_machine_is_listened_to(browser: Browser) -> None:
    assert browser.server.http.server_address[0] == "127.0.0.1"
    assert browser.server.address == f"http://127.0.0.1:{browser.port}/{browser.server.token}/"
    assert len(browser.server.token) == 32


def test_a_port_that_is_taken_is_told(browser: Browser, grading_once: Grading) -> None:
    server = browser.server
    with pytest.raises(UserError, match=f"port = {browser.port}: cannot be had: Address already"):
        GradingServer(server.items, server.book, browser.port)


# ---- grades ----


def test_a_grade_and_many_are_appended_in_order(browser: Browser) -> None:
    one = {"item": "i000003", "grader": "many", "grade": "B", "note": "<script>", "class": "ring"}
    assert browser.grade(one).json == {"number": 1}
    more = [{"item": f"i{n:06d}", "grader": "many", "grade": "X"} for n in range(9, 0, -1)]
    assert browser.grade(more, {"Content-Type": "application/json; charset=utf-8"}).json == {
        "number": 10
    }
    assert lines_of(browser, "many") == ["i000003", *(f"i{n:06d}" for n in range(9, 0, -1))]

    grades = browser.ask("grades.json?grader=many").json["grades"]
    assert len(grades) == 9
    assert grades["i000003"] == {"grade": "X", "class": None, "note": ""}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"grade": "D"}, "grade: Input should be 'A', 'B', 'C' or 'X'"),
        ({"grader": "../anna"}, "grader: String should match"),
        ({"grader": "a" * 51}, "grader: String should match"),
        ({"item": "i000050"}, "item: there is no i000050"),
        ({"item": "i1"}, "item: String should match"),
        ({"class": "nebula"}, "class: Input should be 'ring'"),
        ({"note": "x" * 2001}, "note: String should have at most 2000"),
        ({"seconds": -1}, "seconds: Input should be greater"),
        ({"seconds": "1"}, "seconds: Input should be a valid number"),
        ({"time": "2026-11-27T10:00:00.000Z"}, "time: Extra inputs"),
    ],
)
def test_a_bad_grade_is_told_and_nothing_is_appended(
    changes: dict[str, Any], told: str, browser: Browser
) -> None:
    good = {"item": "i000001", "grader": "careful", "grade": "A"}
    before = browser.server.book.counts
    for body in ({**good, **changes}, [good, {**good, **changes}]):
        answer = browser.grade(body)
        assert answer.status == 400
        assert told in answer.json["error"]
    assert browser.server.book.counts == before


def test_bodies_that_are_no_grades_are_refused(browser: Browser) -> None:
    good = {"item": "i000001", "grader": "careful", "grade": "A"}
    before = browser.server.book.counts
    assert "application/json" in browser.grade(good, {"Content-Type": "text/plain"}).json["error"]
    assert "application/json" in browser.grade(good, {}).json["error"]
    assert "1 to 500" in browser.grade([]).json["error"]
    assert "1 to 500" in browser.grade([good] * 501).json["error"]
    assert "same in all" in browser.grade([good, {**good, "grader": "bob"}]).json["error"]

    too_long = browser.ask("grade", "POST", b" " * (1 << 16) + json.dumps(good).encode(), JSON)
    assert (too_long.status, "65,536 bytes" in too_long.json["error"]) == (400, True)
    assert browser.server.book.counts == before


def test_a_full_disk_is_told_and_the_page_can_try_again(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("full: make room there")

    grade = {"item": "i000001", "grader": "patient", "grade": "A"}
    with monkeypatch.context() as patched:
        patched.setattr(grade_book, "append_grades", refuse)
        answer = browser.grade(grade)
        assert (answer.status, answer.json) == (500, {"error": "full: make room there"})
    assert browser.grade(grade).json == {"number": 1}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ALMOST_GRADES = st.fixed_dictionaries(
    {"item": st.just("i000001") | JSON_VALUES, "grader": st.just("fuzz") | JSON_VALUES},
    optional={"grade": st.just("A") | JSON_VALUES, "note": JSON_VALUES, "class": JSON_VALUES},
)
BODIES = st.binary() | (JSON_VALUES | ALMOST_GRADES | st.lists(ALMOST_GRADES)).map(
    lambda value: json.dumps(value).encode()
)


@given(BODIES)
@settings(max_examples=60)
def test_whatever_is_sent_is_a_grade_or_refused(browser: Browser, body: bytes) -> None:
    before = sum(browser.server.book.counts.values())
    answer = browser.ask("grade", "POST", body, JSON)
    added = sum(browser.server.book.counts.values()) - before
    if answer.status == 200:
        given_grades = json.loads(body)
        assert added == (len(given_grades) if isinstance(given_grades, list) else 1)
    else:
        assert (answer.status, added) == (400, 0)
        assert set(answer.json) == {"error"}
