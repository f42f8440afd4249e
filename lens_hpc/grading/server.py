"""The local server of the grading page: HTTP by Werkzeug, for this machine's browser alone.

Whoever does not know the token in the address learns nothing, not even what there is: 403 and an
empty body. So does another site that makes a browser ask: its origin is told by the browser, and a
name of its own for this address (DNS rebinding) by the header Host.
"""

import hmac
import json
import secrets
import socket
from collections.abc import Iterable
from importlib import resources
from typing import Any

from werkzeug.exceptions import BadRequest
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from lens_hpc.errors import UserError
from lens_hpc.grading.grade_book import GradeBook
from lens_hpc.grading.requests import asked_grader, asked_number, asked_range, given_grades
from lens_hpc.grading.shown_items import ShownItems
from lens_hpc.logs import logger

HOST = "127.0.0.1"
MOST_ITEMS = 1000
MOST_CELLS = 500
LARGEST_CELL = 192
LARGEST_CUTOUT = 2048
SECONDS_OF_SILENCE = 60
"""After which a connection without a request is closed."""

HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
CACHED = {"Cache-Control": "private, max-age=3600"}
SCRIPTS = ("kept.js", "sources.js", "grades.js", "mosaic.js", "single.js", "page.js")
PAGE_FILES = {"": "text/html", "page.css": "text/css"} | dict.fromkeys(SCRIPTS, "text/javascript")


class GradingServer:
    """Serves one grading on a port of this machine, 0 for a free one.

    Raises UserError where another program has the port.
    """

    def __init__(self, items: ShownItems, book: GradeBook, port: int = 0) -> None:
        self.items = items
        self.book = book
        self.token = secrets.token_urlsafe(24)
        self.http = _listen(self, port)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.http.port}/{self.token}/"

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer one request, as WSGI wants it."""
        request = Request(environ)
        response = self._answer(request) if self._is_allowed(request) else _forbidden()
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response(environ, start_response)

    # ---- who may ask ----

    def _is_allowed(self, request: Request) -> bool:
        host = request.headers.get("Host", "")
        if host not in {f"{HOST}:{self.http.port}", f"localhost:{self.http.port}"}:
            return False

        # Browsers tell where a request comes from; a page cannot change what they tell.
        own = f"http://{host}"
        if request.headers.get("Origin", own) != own:
            return False
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            return False

        # This takes as long for a token that is nearly right as for any other.
        given = request.path.encode()
        return hmac.compare_digest(given[: len(self._root)], self._root)

    @property
    def _root(self) -> bytes:
        return f"/{self.token}/".encode()

    # ---- what is answered ----

    def _answer(self, request: Request) -> Response:
        name = request.path[len(self._root) :]
        try:
            if request.method == "POST" and name == "grade":
                return self._add(request)
            if request.method == "GET":
                return self._show(name, request)
        except BadRequest as error:
            return _json({"error": error.description}, status=400)
        except UserError as error:
            logger.error("%s", error)
            return _json({"error": str(error)}, status=500)
        return _forbidden()

    def _show(self, name: str, request: Request) -> Response:
        if name in PAGE_FILES:
            return _page_file(name)
        if name == "grading.json":
            return _json(self.items.describe())
        if name == "items.json":
            start, count = asked_range(request, MOST_ITEMS)
            return _json({"items": self.items.facts(start, count)})
        if name == "grades.json":
            return _json({"grades": self.book.latest(asked_grader(request))})
        if name == "sheet.png":
            start, count = asked_range(request, MOST_CELLS)
            size = asked_number(request, "size", 96, LARGEST_CELL)
            view = self._view(request)
            return _png(self.items.sheet(start, count, view, size))

        # What is left is cutout/ITEM.png, or nothing that is served.
        folder, _, picture = name.partition("/")
        item = picture.removesuffix(".png")
        if folder == "cutout" and picture.endswith(".png") and item in self.items:
            size = asked_number(request, "size", 512, LARGEST_CUTOUT)
            view = self._view(request)
            return _png(self.items.cutout(item, view, size))
        return _forbidden()

    def _add(self, request: Request) -> Response:
        """Append one grade or a list of them, and confirm when they are on disk."""
        given = given_grades(request)
        unknown = [one.item for one in given if one.item not in self.items]
        if unknown:
            raise BadRequest(f"item: there is no {unknown[0]}")
        if len({one.grader for one in given}) > 1:
            raise BadRequest("grader: must be the same in all grades")
        return _json({"number": self.book.add(given)})

    def _view(self, request: Request) -> str:
        view = request.args.get("view", self.items.views[0])
        if view not in self.items.views:
            raise BadRequest(f"view: must be one of {', '.join(self.items.views)}")
        return view


class _Handler(WSGIRequestHandler):
    """Handles a connection, without a line in the log for each: addresses have the token."""

    timeout = SECONDS_OF_SILENCE

    def version_string(self) -> str:
        """Return what the header Server says: nothing that helps a stranger."""
        return "lens-hpc"

    def log_request(self, *_: object) -> None:
        """Say nothing."""

    def log(self, type: str, message: str, *args: object) -> None:
        logger.debug("%s: %s", type, message % args if args else message)


def _listen(app: GradingServer, port: int) -> BaseWSGIServer:
    # Werkzeug itself would end the process where it cannot have the port.
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise UserError(
            f"port = {port}: cannot be had: {error.strerror}; name another, or 0 for a free one"
        ) from error
    with listening:
        return make_server(
            HOST, port, app, threaded=True, request_handler=_Handler, fd=listening.fileno()
        )


# ---- responses ----


def _forbidden() -> Response:
    return Response(status=403)


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(content), status, mimetype="application/json")


def _png(content: bytes) -> Response:
    return Response(content, mimetype="image/png", headers=CACHED)


def _page_file(name: str) -> Response:
    file = resources.files("lens_hpc.grading") / "page" / (name or "page.html")
    return Response(file.read_bytes(), content_type=f"{PAGE_FILES[name]}; charset=utf-8")
