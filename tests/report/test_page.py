import re
import shutil
from html.parser import HTMLParser

import pytest

from ctpo.report import write_report
from ctpo.report.examples import MAX_CHARACTERS, examples

OPTIONAL = (
    "evaluations/final.json",
    "timing.json",
    "environment.json",
    "positions.parquet",
    "trajectories.parquet",
)


class Page(HTMLParser):
    """Collects a page's elements, the addresses they refer to and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.references, self.pieces = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data):
        self.pieces.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.pieces).split())


def page_of(run_dir):
    return write_report(run_dir).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(whole_run):
    assert write_report(whole_run) == whole_run / "report.html"
    return (whole_run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(html):
    return Page(html).text


def test_the_page_asks_nothing_of_the_network(html):
    page = Page(html)
    outside = [one for one in page.references if not one.startswith("data:")]
    assert outside == ["https://arxiv.org/abs/2605.07331"]
    assert not {"script", "link", "iframe"} & set(page.elements)
    assert "@import" not in html
    assert "url(" not in html


def test_transcripts_are_escaped(html, text):
    assert "<script" not in html
    assert "<b>True" not in html
    assert "print(1 < 2) <script>alert('x')</script> & \"quotes\"" in text


def test_numbers_before_and_after_are_on_the_page(text):
    assert "20.0 % → 80.0 %" in text
    assert "15.0 – 25.0 before, 75.0 – 85.0 after" in text
    assert "digit_sum sampled 50 10.0 % 5.0 – 15.0 70.0 % 65.0 – 75.0 +60.0 3 / 3" in text
    assert "12 rollout batches, 192 optimizer updates" in text


def test_every_section_of_a_whole_run_is_shown(text):
    assert "Not shown" not in text
    assert "updates 3 min 30 s 70 %" in text
    assert "packages.torch 2.13.0" in text
    assert 'preset = "ctpo"' in text


def test_a_section_without_its_file_says_so(run_dir):
    for name in OPTIONAL:
        path = run_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (run_dir / "metrics.jsonl").write_text("")
    (run_dir / "recipe.toml").write_text('name = "</pre><img src=x>"\n')
    html = page_of(run_dir)
    text = Page(html).text
    for name in OPTIONAL:
        assert re.search(rf"this run has no .{{0,40}}{re.escape(name)}", text), name
    assert "0 rollout batches" in text
    assert "<img src=x>" not in html


def test_examples_are_the_best_and_the_worst_of_the_first_and_the_last_batch(whole_run):
    found = [(one.batch, one.reward) for one in examples(whole_run)]
    assert found == [(1, 1.0), (1, 0.0), (1, None), (12, 1.0), (12, 0.0), (12, None)]
    assert [part.role for part in examples(whole_run)[0].parts] == ["assistant", "tool"]


def test_a_long_transcript_is_cut_and_says_by_how_much(run_dir, write_table):
    row = {"batch": 1, "problem_id": "p", "reward": 1.0, "text": "x" * (MAX_CHARACTERS + 7)}
    write_table("trajectories.parquet", [row])
    (example,) = examples(run_dir)
    assert example.left_out == 7
    assert "7 characters left out" in page_of(run_dir)
