"""What requests of the grading page say. All raise BadRequest for what makes no sense."""

from pydantic import TypeAdapter, ValidationError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.wrappers import Request

from lens_hpc.grading.grade_files import GivenGrade, GraderName, first_problem

LARGEST_BODY = 1 << 16
MOST_GRADES = 500
"""In one request: a page of the mosaic, and more."""

GIVEN = TypeAdapter(list[GivenGrade])
GRADER = TypeAdapter(GraderName)


def given_grades(request: Request) -> list[GivenGrade]:
    """Return the grades that a request brings, one or a list of them."""
    if request.mimetype != "application/json":
        raise BadRequest("Content-Type: must be application/json")
    request.max_content_length = LARGEST_BODY
    try:
        body = request.get_data().strip()
    except RequestEntityTooLarge as error:
        raise BadRequest(f"body: must have at most {LARGEST_BODY:,} bytes") from error

    try:
        given = GIVEN.validate_json(body if body.startswith(b"[") else b"[%b]" % body)
    except ValidationError as error:
        raise BadRequest(first_problem(error)) from error
    if not 0 < len(given) <= MOST_GRADES:
        raise BadRequest(f"body: must have 1 to {MOST_GRADES} grades")
    return given


def asked_range(request: Request, most: int) -> tuple[int, int]:
    """Return the first item that is asked for, and how many, at most so many."""
    start = asked_number(request, "start", 0, 1 << 31, least=0)
    return start, asked_number(request, "count", 200, most)


def asked_number(request: Request, name: str, default: int, most: int, least: int = 1) -> int:
    """Return a whole number within these bounds."""
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise BadRequest(f"{name}: must be a whole number")
    if not least <= int(text) <= most:
        raise BadRequest(f"{name}: must be from {least} to {most}")
    return int(text)


def asked_grader(request: Request) -> str:
    """Return the name of the grader who asks."""
    try:
        return GRADER.validate_python(request.args.get("grader", ""))
    except ValidationError as error:
        raise BadRequest("grader: must have letters, digits, _ . and -, up to 50") from error
