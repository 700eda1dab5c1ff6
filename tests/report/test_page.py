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
def html(coloured_run):
    assert write_report(coloured_run) == coloured_run / "report.html"
    return (coloured_run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(html):
    return Page(html).text


def test_the_page_asks_nothing_of_the_network(html):
    page = Page(html)
    outside = [one for one in page.references if not one.startswith("data:")]
    assert outside and all(one.startswith("https://arxiv.org/abs/") for one in outside)
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
    worked = "It worked: held-out accuracy went from 20.0 % to 80.0 %, +60.0 points"
    assert f"{worked} (95 % interval +53.1 to +66.9)." in text  # 1.96 · √2 · 0.025


def test_the_page_says_what_was_trained_and_how_the_recipe_differs(text):
    assert "preset ctpo" in text
    assert "from the shipped recipe tiny in seed 1 instead of 0, model.path here instead of" in text
    assert "ctpo eval" in text and "recipe.toml" in text


def test_each_figure_says_in_words_what_it_shows(html):
    alts = re.findall(r'<img src="[^"]*" alt="([^"]*)"', html)
    assert len(alts) == html.count("<figure>") == 5
    assert "sampled: 20.0 % after batch 0, 50.0 % after batch 6, 80.0 % after batch 12" in alts[0]
    assert "at first 9.0 % (t = 1), at last 9.0 % (t = 124.5)" in alts[1]


def test_a_token_has_the_colour_of_its_log_ratio_and_the_line_of_the_clipped(html, text):
    rho = "t = 2, log r = -0.05, log ρ = -0.05"
    assert f'<i class="down2" title="{rho}">' in html
    assert '<i class="up5 clipped" title="t = 3, log r = 1.2, log ρ = 1.15, clipped">so</i>' in html
    assert '<i title="t = 1, log r = 0, log ρ = 0">print(1 &lt; 2)</i>' in html
    assert "advantage +0.00" in text and "1 of 3 tokens clipped, after 7 updates" in text


def test_a_check_passes_or_fails_and_no_zero_has_a_sign(html):
    assert '<td class="pass">pass</td>' in html
    assert not re.search(r"-0(?:\.0+)?(?![\d.])", re.sub(r'(?:src|srcset)="[^"]*"', "", html))


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
    assert examples(whole_run)[0].clipped is None


def test_a_long_transcript_is_cut_and_says_by_how_much(run_dir, write_table):
    row = {"batch": 1, "problem_id": "p", "reward": 1.0, "text": "x" * (MAX_CHARACTERS + 7)}
    write_table("trajectories.parquet", [row])
    shutil.rmtree(run_dir / "positions.parquet")  # whose figures are not what this is about
    (example,) = examples(run_dir)
    assert example.left_out == 7
    assert "7 characters left out" in page_of(run_dir)
