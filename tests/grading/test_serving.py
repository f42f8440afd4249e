"""The real command: grades survive every kill, and a request to stop ends it with 0."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lens_hpc.grading import serving
from lens_hpc.grading.grade_files import read_grades, read_lines
from lens_hpc.grading.grade_settings import GradeSettings
from lens_hpc.grading.grading_folder import open_grading
from lens_hpc.grading.server import GradingServer
from lens_hpc.layout import grades_file

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/")


def send(address: str, body: object) -> Any:
    found = ADDRESS.search(address)
    assert found
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", f"/{found[2]}/grade", json.dumps(body), headers)
    answer = connection.getresponse()
    assert answer.status == 200
    return json.loads(answer.read())


@contextmanager
def served(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command in a process of its own, and its address."""
    command = [sys.executable, "-m", "lens_hpc", "grade", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        yield process, process.stderr.readline()
    finally:
        process.kill()
        process.communicate()


def grade_of(item: int, grader: str = "anna", **others: object) -> dict[str, object]:
    return {"item": f"i{item % 40:06d}", "grader": grader, "grade": "A", **others}


@pytest.mark.slow
def test_of_100_grades_with_a_kill_after_each_tenth_all_are_there_in_order(
    made: Path, tmp_path: Path
) -> None:
    sent = [grade_of(number, note=str(number)) for number in range(100)]
    for tenth in range(10):
        with served(str(made / "candidates"), f"output={tmp_path / 'g'}") as (process, address):
            for number in range(10 * tenth, 10 * tenth + 10):
                assert send(address, sent[number]) == {"number": number + 1}
            process.send_signal(signal.SIGKILL)
            process.wait()

    grading = open_grading(tmp_path / "g")
    lines = list(read_lines(grades_file(tmp_path / "g", "anna"), grading.record.fingerprint))
    assert [line.note for line in lines] == [str(number) for number in range(100)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_ends_it_with_0_and_a_second_server_is_told(
    number: signal.Signals, made: Path, tmp_path: Path
) -> None:
    arguments = (str(made / "candidates"), f"output={tmp_path / 'g'}")
    with served(*arguments) as (process, address):
        assert send(address, [grade_of(0), grade_of(1)]) == {"number": 2}
        if number == signal.SIGINT:
            with served(*arguments) as (second, told):
                assert second.wait(60) == 2
                assert f"{tmp_path}/g: is being written by process {process.pid}" in told

        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert f"{tmp_path}/g: 40 items\n  grades by anna: 2\n" in output
    assert not list(tmp_path.glob(".*.lock"))


@pytest.mark.slow
def test_the_page_needs_no_torch() -> None:
    # A laptop that shows candidates does not wait for it, nor need the memory.
    code = "import sys, lens_hpc.grading.serving; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- within this process ----


def test_a_call_from_python_serves_until_it_is_interrupted(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [signal.getsignal(number) for number in serving.STOPPING]
    told: list[str] = []

    def grade_and_interrupt(server: GradingServer) -> None:
        told.append(server.address)
        send(server.address, grade_of(3, "bob"))
        os.kill(os.getpid(), signal.SIGINT)

    def serve(server: GradingServer) -> None:
        thread = threading.Thread(target=grade_and_interrupt, args=[server])
        thread.start()
        whole(server)
        thread.join()

    whole = serving._serve
    monkeypatch.setattr(serving, "_serve", serve)
    settings = GradeSettings(candidates=made / "candidates", output=tmp_path / "g")
    graded = serving.grade_candidates(settings)
    assert graded.grades == {"bob": 1}
    assert [signal.getsignal(number) for number in serving.STOPPING] == before

    # It listens no more.
    with pytest.raises(ConnectionRefusedError):
        send(told[0], grade_of(4, "bob"))
    files = [grades_file(tmp_path / "g", "bob")]
    table = read_grades(files, open_grading(tmp_path / "g").record.fingerprint)
    assert table["item"].tolist() == ["i000003"]


def test_with_a_page_nothing_is_served(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_serve", lambda _: pytest.fail("it serves"))
    page = tmp_path / "new" / "vetting.html"
    settings = GradeSettings(
        candidates=made / "candidates", output=tmp_path / "g", page=page, limit=2
    )
    graded = serving.grade_candidates(settings)
    assert graded.page == page
    assert page.stat().st_size > 1000
