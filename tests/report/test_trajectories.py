"""The page of an evaluation's answers, as text and in a real browser."""

import html
import json
import re

import pytest

from ctpo.evaluation.answers import Question, Reply, graded
from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.evaluation.summary import summarize
from ctpo.report import ReportError
from ctpo.report import trajectories as module
from ctpo.report.trajectories import write_trajectory_page
from ctpo.tasks import Problem
from ctpo.tir.server.episodes import Transcript
from ctpo.tir.trajectory import ToolResult

CODE = "for i in range(3):\n    print(i, '<b>')"
EVIL = "</pre><script>document.title = 'taken over'</script>"


def answered(number, sample, box, *, status="success", finish="answered", hermes=False):
    problem = Problem(
        f"p{number}", ({"role": "user", "content": f"What is 6*7? {EVIL}"},), "42", "s", "test"
    )
    call = f"I compute.\n```python\n{CODE}\n```"
    if hermes:
        arguments = {"name": "python", "arguments": {"code": CODE}}
        call = f"<tool_call>\n{json.dumps(arguments)}\n</tool_call>"
    transcript = Transcript(
        turns=[
            ("reasoning", "Hm, hm."),
            ("assistant", call),
            ("tool", f"```output\n0 {EVIL}\n```"),
            ("assistant", f"So {EVIL} \\boxed{{{box}}}" if box else "So"),
        ],
        tool_results=[ToolResult(CODE, status, "0", None)],
        finish_reason=finish,
        tokens=20,
    )
    question = Question.of("bench", problem, sample, 0)
    return question, graded(question, Reply(transcript, 1.0, 3))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "eval"
    given = [
        answered(0, 0, "42"),
        answered(0, 1, "41", status="error"),
        answered(1, 0, "41"),
        answered(1, 1, "", finish="length"),
        answered(2, 0, r"42\ldots", status="timeout"),
        answered(2, 1, "42", hermes=True),
    ]
    settings = {"model": "tiny & co", "protocol": "fence-2", "temperature": 1.0, "seed": 0}
    settings |= {"api": "chat"}
    with EvaluationDirectory(path, settings) as kept:
        kept.add_problems([question for question, _ in given])
        kept.add([answer for _, answer in given])
        summary = summarize(list(kept.answers.values()), {"bench": {"source": "here"}}, [1, 2])
        kept.write("summary.json", json.dumps(summary))
    write_trajectory_page(path)
    return path


def test_the_page_holds_every_answer_and_escapes_what_models_write(directory):
    page = (directory / "trajectories.html").read_text()
    assert page.count('<details class="answer') == 6
    assert page.count("<script>") == 1
    assert EVIL not in page
    assert "tiny &amp; co" in page
    assert "avg@2" in page


def test_programs_are_highlighted_also_those_inside_a_json_call(directory):
    page = (directory / "trajectories.html").read_text()
    blocks = re.findall(r'<pre class="code">(.*?)</pre>', page, re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        assert '<span class="k">for</span>' in block
        assert html.unescape(re.sub(r"<[^>]*>", "", block)) == CODE
    assert page.count('<pre class="tool output">') == 6
    assert page.count('<pre class="thought">') == 6


@pytest.mark.parametrize(
    "block",
    [
        "```python\nprint(1)\n```",
        "```py\nprint(1)\n```",
        "~~~python\nprint(1)\n~~~",
        "1. Run:\n   ```python\n   print(1)\n   ```",
        "````python\nprint(1)\n````",
    ],
)
def test_every_way_to_fence_a_program_is_shown_as_one(block):
    pieces = module._said(f"So\n{block}\nand on")
    (code,) = [piece for piece in pieces if piece.kind == "code"]
    assert re.sub(r"<[^>]*>", "", code.html) == "print(1)"


def test_the_page_asks_nothing_of_the_network(directory):
    page = (directory / "trajectories.html").read_text()
    assert not re.search(r"""(?:src|href)\s*=|@import|url\(|https?://""", page)


def test_of_very_many_answers_some_of_every_problem_are_shown(directory, monkeypatch):
    monkeypatch.setattr(module, "MAX_ANSWERS", 4)
    try:
        page = write_trajectory_page(directory).read_text()
    finally:
        monkeypatch.undo()
        write_trajectory_page(directory)
    assert page.count('<details class="answer') == 4
    assert {p for p in ("p0", "p1", "p2") if f"· {p} ·" in page} == {"p0", "p1", "p2"}
    assert "2 answers are not on this page" in page


def test_an_unfinished_evaluation_is_told(tmp_path):
    with pytest.raises(
        ReportError, match="summary.json is missing; the evaluation is not finished"
    ):
        write_trajectory_page(tmp_path)


def visible(dom):
    """Problem, sample and outcome of the answers that are not hidden."""
    found = re.findall(r'<details class="answer ([\w-]+)"([^>]*)>\s*<summary>([^<]*)', dom)
    return [
        (*re.findall(r"· (p\d) · sample (\d)", summary)[0], outcome)
        for outcome, attributes, summary in found
        if "hidden" not in attributes
    ]


ALL = [(f"p{n}", str(sample)) for n in range(3) for sample in range(2)]
ADDRESSES = {
    "": ALL,
    "#all": ALL,
    "#wrong": [("p0", "1"), ("p1", "0"), ("p1", "1")],
    "#right": [("p0", "0"), ("p2", "1")],
    "#failed": [("p0", "1"), ("p2", "0")],
    "#could-not-tell": [("p2", "0")],
    "#wrong&failed": [("p0", "1")],
    "#truncated": [("p1", "1")],
    "#text=p2": [("p2", "0"), ("p2", "1")],
    "#wrong&text=tom%20%26%20jerry": [],
    "#text=100%": [],
}
# Goes to each address in turn, and at last types into the form.
WALK = """<script>
(async () => {
  const shown = () => [...document.querySelectorAll(".answer:not([hidden]) > summary")]
    .map(e => e.textContent.match(/· (p\\d) · sample (\\d)/).slice(1));
  const told = () => document.getElementById("shown").textContent;
  const seen = [];
  for (const address of ADDRESSES) {
    const changed = new Promise(done => addEventListener("hashchange", done, { once: true }));
    location.hash = address;
    await changed;
    seen.push([shown(), told(), form.elements.text.value]);
  }
  form.elements.text.value = "tom & jerry";
  form.dispatchEvent(new Event("input"));
  seen.push([shown(), told(), location.hash]);
  document.body.innerHTML = "<pre id=walked></pre>";
  document.getElementById("walked").textContent = JSON.stringify(seen);
})();
</script>"""


def test_in_a_browser_the_filters_leave_what_they_say(browser, directory, tmp_path):
    addresses = [*ADDRESSES][1:] + [""]  # it is at none to begin with
    walk = WALK.replace("ADDRESSES", json.dumps(addresses))
    page = (directory / "trajectories.html").read_text()
    (tmp_path / "walk.html").write_text(page.replace("</body>", f"{walk}</body>"))
    dom = browser(tmp_path / "walk.html")
    (walked,) = re.findall(r'<pre id="walked">(.*?)</pre>', dom)
    *seen, typed = json.loads(html.unescape(walked))
    for address, (shown, told, text) in zip(addresses, seen, strict=True):
        assert [tuple(answer) for answer in shown] == ADDRESSES[address], address
        assert told == f"{len(shown)} of 6"
        assert text == {"#text=p2": "p2", "#text=100%": "100%"}.get(
            address, "tom & jerry" if "jerry" in address else ""
        )
    assert typed == [[], "0 of 6", "#all&text%3Dtom%20%26%20jerry"]


def test_in_a_browser_a_page_opened_at_an_address_shows_what_it_says(browser, directory):
    dom = browser(directory / "trajectories.html", "#wrong&failed")
    assert visible(dom) == [("p0", "1", "wrong")]
    assert '<output id="shown">1 of 6</output>' in dom


def test_in_a_browser_nothing_a_model_wrote_is_run(browser, directory):
    dom = browser(directory / "trajectories.html")
    assert "<title>tiny &amp; co · answers</title>" in dom
    assert "taken over" in dom  # as text
