"""The report as a browser shows it: complete, on its own, at any width, its text only text."""

import html
import json
import os
import re
import shutil
import subprocess
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lens_hpc import config, metrics
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.verdict import Audit, Finding
from lens_hpc.metrics import table
from lens_hpc.reporting import report
from lens_hpc.reporting.comparison import Ablation, Arm, Comparison, Seed
from lens_hpc.reporting.facts import Fact
from lens_hpc.reporting.galleries import Album, Card, Gallery
from lens_hpc.reporting.pictures import ScaleBar
from lens_hpc.reporting.results import Survey, evaluate_scores
from lens_hpc.scoring.calibration import Calibration
from lens_hpc.scoring.predictions import Scores
from tests.conftest import pack_survey, write_survey

pytestmark = pytest.mark.slow
# The first gallery and two others.
CUTOUTS = 16 + 2 * 24
FIGURES = 8
EVIL = "<script>alert('x')</script>&\"'"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LOOK = """<script>
addEventListener("load", () => {
  const shown = image => image.naturalWidth > 0 && image.getBoundingClientRect().width > 60;
  const images = [...document.images];
  const positions = [...document.querySelectorAll("input.view")].map(input => {
    input.checked = true;
    return getComputedStyle(document.querySelector(".shot img")).objectPosition.split(" ")[0];
  });
  parent.postMessage(JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth, images: images.length,
    positions, hidden: images.filter(image => !shown(image)).length,
    loaded: performance.getEntriesByType("resource").map(entry => entry.name.slice(0, 40)),
  }), "*");
});
</script>"""


# A frame may be narrower than the narrowest window of a browser without a screen.
FRAME = """<script>
addEventListener("message", event => { document.body.dataset.seen = event.data; });
</script>
<body><iframe src="report.html" style="border: 0; width: {width}px; height: 900px"></iframe></body>
"""
# What stands where there is no number, and between the ends of an interval.
DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, of a survey whose ids are not nice."""
    return write_page(tmp_path_factory.mktemp("report"))


def write_page(folder: Path) -> Path:
    rows = 200
    survey = write_survey(
        folder / "s", rows=rows, size=20, objid=[f"{i} {EVIL}" for i in range(rows)]
    )
    options = ('images="{id}.npy"', "columns.id=objid", "splits={train: 0.2, test: 0.8}")
    split = Split(pack_survey(survey, folder / "d", *options), "test")
    labels = split.take("labels", np.arange(len(split)))
    noise = np.random.default_rng(0).normal(size=len(split))
    logits = (noise + 2 * labels).astype(np.float32)

    calibration = Calibration(2.0, (-1.0, 2.0), (0.1, 0.9), 0.5)
    results = evaluate_scores(labels, logits, Survey(1e-3, 10**8, (0.5, 0.9)), None, calibration)
    theirs = {"auc": 0.9, "tpr0": 0.1, "tpr10": None, "average_precision": 0.8}
    trained = config.Train(
        run=folder, data=config.Data(dataset=folder), model=config.Model(inputs="image")
    )
    seed = Seed(Path("runs/image"), trained, theirs, folder)
    comparison = Comparison(Arm(f"runs/{EVIL} $\\frac{{$ \udcff", [seed]))
    comparison.difference = metrics.compare_aucs(labels, logits, logits**3)
    comparison.curve = metrics.rank(labels, logits**3)
    values = {key: quantity.value for key, quantity in results.quantities.items()}
    own = Arm("this run", [Seed(folder, trained, values, folder)])
    ablation = Ablation(own, [comparison])

    leak = Finding(verdict="leak", check="feature radius", found=EVIL)
    audit = Audit(dataset="toy", manifest_crc32="0", rows=rows, findings=(leak,))
    origin = {
        "runs": ["r"],
        "dataset": EVIL,
        "dataset_crc32": "0",
        "split": "test",
        "weights": "best",
        "tta": "none",
        "unlike_training": [EVIL],
    }
    run = folder / "a run"
    run.mkdir()
    epochs = [f'{{"epoch": {n}, "loss": 1, "val_auc": 0.9}}\n' for n in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(epochs))

    subject = report.Subject(run, "fusion", origin, audit)
    scores = Scores(labels, logits, None)
    report.write_report(folder, subject, results, ablation, split, scores)
    return folder / "report.html"


def test_text_of_catalogues_is_escaped_and_nothing_is_fetched(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text
    assert html.escape(EVIL, quote=False).split("(")[0] in text
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import""", text)
    assert text.count('<figure class="is-') == CUTOUTS


class Structure(HTMLParser):
    """The tags of a page, with the names of their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))


def page_of(text: str) -> str:
    """A page in which each text of the data is this one."""
    labels = np.array([0, 1] * 5)
    results = evaluate_scores(labels, np.arange(10.0), Survey(1e-3, 10**6, (0.5,)))
    run = Path(f"/{text}".replace("\0", ""))
    trained = config.Train(run=run, data=config.Data(dataset=Path()))
    arms = [Arm(text, [Seed(run, trained, {"auc": auc}, run)] * 2) for auc in (0.5, 0.6)]
    comparison = Comparison(arms[1], metrics.Difference(0.1, (0.0, 0.2), 0.1))
    words = ("dataset", "split", "weights", "tta", "dataset_crc32")
    origin = {"runs": [text, text], "unlike_training": [text]} | dict.fromkeys(words, text)
    finding = Finding(verdict="leak", check=text, found=text)
    audit = Audit(dataset=text, manifest_crc32="0", rows=1, findings=(finding,))
    card = Card("data:,", text, "lens", 1, 0.5, {text: text}, {text: 1.0})
    gallery = Gallery("title", "meaning", [card])
    return report._fill_template(
        subject=report.Subject(run, text, origin, audit),
        results=results,
        ablation=Ablation(arms[0], [comparison]),
        figures={},
        captions={},
        album=Album((text, text), ScaleBar(1.0, 20.0), [gallery, gallery]),
        facts=[Fact(text, text), Fact(text, text, is_code=True)],
        selections=[],
        can_be_audited=True,
        manifest=SimpleNamespace(
            grouped=False, bands=(text,), height=1, width=1, pixel_scale_arcsec=1.0
        ),
    )


@settings(max_examples=40)
@given(st.text(st.characters() | st.sampled_from("<>&\"'=/!-` \0\udc80{}%")))
@example(EVIL)
@example("--><!--<b onclick=x>")
@example("{{ 1 / 0 }}{% raw %}")
def test_no_text_of_the_data_becomes_a_tag(text: str) -> None:
    assert Structure(page_of(text)).tags == harmless_tags()


@cache
def harmless_tags() -> list[tuple[str, ...]]:
    return Structure(page_of("harmless")).tags


@pytest.mark.parametrize(
    ("lines", "epochs", "warned"),
    [
        ('{"epoch": 1, "loss": 1, "val_auc": NaN, "more": null}\n', 1, False),
        ('{"epoch": 1, "loss": 1, "val_auc": 0.9}\n{"epoch": 2, "lo', 1, False),
        ('{"epoch": 1, "loss": 1, "val_auc": 0.9}\nnull\n', 0, True),
        ('{"epoch": 1, "loss": "1", "val_auc": 0.9}\n', 0, True),
        ('{"epoch": 1, "loss": 1, "val_auc": 0.9, "val_loss": 0.5}\n', 1, False),
        ('{"epoch": 1, "loss": 1, "val_auc": 0.9, "val_loss": null}\n', 0, True),
        ("[" * 100_000 + "\n", 0, True),
        ("\x1b[2J\x00\udcff\n", 0, True),
        ("", 0, False),
    ],
)
def test_a_damaged_record_of_the_epochs_ends_no_evaluation(
    lines: str, epochs: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(os.fsencode(lines))
    assert len(report.read_learning_curve(tmp_path)) == epochs
    assert bool(caplog.messages) == warned
    assert all(str(tmp_path / "metrics.jsonl") in message for message in caplog.messages)


def test_it_names_the_leak_on_top_and_says_what_cannot_be_said(page: Path) -> None:
    text = page.read_text()
    assert text.index('class="verdict leak"') < text.index("<h2>Metrics")
    assert text.count("completeness at a false positive rate of") == 3
    said = text[text.index("Not known from 80 non-lenses") :]
    assert "completeness at a false positive rate of 0.1% (needs 10,000)" in said


def test_the_comparison_has_the_headline_numbers_of_both(page: Path) -> None:
    text = page.read_text()
    (header,) = re.findall(r"<tr><th>runs</th>.*</tr>", text)
    assert re.findall("<th>(.*?)</th>", header) == [
        "runs",
        "inputs",
        "AUC",
        "TPR0",
        "TPR10",
        "average precision",
        "this run's AUC",
        "p",
    ]
    assert '<td data-title="AUC">0.9000</td>' in text
    assert '<td data-title="TPR0">0.100</td>' in text
    assert re.search(r"AUC.>(higher|lower|no difference is shown).* \[[+-]0\.\d+, [+-]0", text)
    assert '<td data-title="TPR10">' + DASH + "</td>" in text


def test_a_new_metric_has_a_card_a_line_and_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = metrics.Metric(
        "sixth", "before the sixth", metrics.average_precision, "SIXTH", headline=True
    )
    monkeypatch.setattr(table, "METRICS", (*table.METRICS, new))
    text = write_page(tmp_path).read_text()

    assert re.search(
        r'<div class="card">SIXTH<b>0\.\d{4}</b><span class="soft">0\.\d{4} ' + DASH, text
    )
    assert re.search(r'<td data-title="metric">before the sixth</td><td data-title="value">0', text)
    assert "<th>SIXTH</th>" in text
    assert '<td data-title="SIXTH">' + DASH + "</td>" in text, "the other run has none yet"


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("", "No sample has a label"),
        ("0", "No labelled sample is a lens"),
        ("1", "Every labelled sample is a lens"),
    ],
)
def test_one_class_alone_has_scores_and_no_advice_that_is_refused(
    tmp_path: Path, label: str, said: str
) -> None:
    survey = write_survey(tmp_path / "s", is_lens=[label] * 40)
    split = Split(pack_survey(survey, tmp_path / "d", "splits={test: 1.0}"), "test")
    scores = Scores(split.take("labels", np.arange(40)), np.arange(40, dtype=np.float32), None)
    results = evaluate_scores(scores.labels, scores.logits, Survey(1e-3, 10**6, (0.5,)))
    words = ("dataset", "split", "weights", "dataset_crc32")
    origin = {"runs": ["r"], "unlike_training": [], "tta": "none"} | dict.fromkeys(words, "word")
    subject = report.Subject(tmp_path / "run", "fusion", origin, None)
    trained = config.Train(run=tmp_path, data=config.Data(dataset=tmp_path))
    own = Arm("this run", [Seed(tmp_path, trained, {}, tmp_path)])
    report.write_report(tmp_path, subject, results, Ablation(own, []), split, scores)

    text = (tmp_path / "report.html").read_text()
    assert said in text
    assert "classes are needed" not in text
    assert "lens-hpc audit" not in text
    assert "<h2>Metrics" not in text
    assert re.search("probability above 0.9<b>37</b>", text)
    pictures = {file.stem for file in (tmp_path / "figures").glob("*.png")}
    assert "scores" in pictures
    assert "roc" not in pictures


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_all_of_it(page: Path, tmp_path: Path, width: int) -> None:
    (tmp_path / "frame.html").write_text(FRAME.replace("{width}", str(width)))
    (tmp_path / "report.html").write_text(page.read_text().replace("</body>", f"{LOOK}</body>"))
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}/u",
        "--virtual-time-budget=10000",
        "--window-size=1400,1000",
        "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    told = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert told is not None, done.stderr[-2000:]
    seen = json.loads(html.unescape(told[1]))
    assert seen["width"] == width
    assert seen["scroll"] <= width, "it scrolls sideways"
    assert seen["images"] == FIGURES + CUTOUTS
    assert seen["hidden"] == 0
    assert seen["positions"] == ["0%", "25%", "50%", "75%", "100%"]
    assert [name for name in seen["loaded"] if not name.startswith("data:")] == []
