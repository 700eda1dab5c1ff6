"""The pages in a real browser: nothing is off the edge, figures and words can be read."""

import json
import re
import shutil

import pytest

from ctpo.report import write_overlay, write_report

# Each page at two widths, light and dark, side by side in frames that say what they measured.
FRAMES = """<!doctype html><title>waiting</title><body>{frames}<script>
const found = {{}};
addEventListener("message", event => {{
  const [name, measured] = event.data;
  found[name] = measured;
  if (Object.keys(found).length == {count}) {{
    document.body.innerHTML = "";
    document.body.append(JSON.stringify(found));
    document.title = "measured";
  }}
}});
</script>"""
MEASURE = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("load", () => {
  const luminance = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const contrast = element => {
    const ink = luminance(getComputedStyle(element).color);
    return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  };
  const shown = [...document.querySelectorAll("body *")]
    .filter(e => e.tagName != "SCRIPT" && e.getClientRects().length);
  const measured = {
    errors,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    paper,
    width: innerWidth,
    scrolls: document.documentElement.scrollWidth,
    outside: shown.filter(e => e.getBoundingClientRect().right > innerWidth + 1)
      .map(e => e.tagName + " " + e.textContent.slice(0, 40)),
    scales: [...document.images].map(i => i.naturalWidth ? i.clientWidth / i.naturalWidth : 0),
    alts: [...document.images].map(i => i.alt),
    smallest: Math.min(...shown.map(e => parseFloat(getComputedStyle(e).fontSize))),
    contrast: Math.min(...shown.map(contrast)),
  };
  parent.postMessage([name, measured], "*");
});
</script>"""


@pytest.fixture(scope="module")
def measured(browser, coloured_run, whole_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    bare = [shutil.copytree(run, folder / run.name) for run in (coloured_run, whole_run)]
    for run in bare:
        shutil.rmtree(run / "positions.parquet")  # whose figures are in the other page
    made = {
        "run": coloured_run / "report.html",
        "overlay": write_overlay(bare, folder / "overlay.html"),
    }
    if not made["run"].is_file():
        write_report(coloured_run)
    frames = []
    for name, page in made.items():
        html = page.read_text(encoding="utf-8")
        (folder / f"{name}.html").write_text(html.replace("<head>", f"<head>{MEASURE}", 1))
        for width in (400, 1200):
            frames += [
                f'<iframe name="{name} {width} {scheme}" src="{name}.html" '
                f'style="width: {width}px; height: 900px; border: 0; color-scheme: {scheme}">'
                "</iframe>"
                for scheme in ("light", "dark")
            ]
    (folder / "all.html").write_text(FRAMES.format(frames="".join(frames), count=len(frames)))
    # The browser's clock is a virtual one, which may run out before all frames have answered.
    for _ in range(10):
        dom = browser(folder / "all.html")
        if found := re.search(r"<title>measured</title>.*<body>(.*?)</body>", dom, re.DOTALL):
            break
    assert found, dom[:2000]
    return json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("page", ["run", "overlay"])
def test_a_page_can_be_read(measured, page, width, scheme):
    found = measured[f"{page} {width} {scheme}"]
    assert found["width"] == width and found["dark"] == (scheme == "dark")
    assert (found["paper"] < 0.1) == found["dark"]
    assert found["errors"] == []
    assert found["outside"] == [] and found["scrolls"] <= width
    # Figures are drawn for about the width they are shown at: their smallest type has 8 points.
    assert len(found["scales"]) == {"run": 5, "overlay": 2}[page]
    assert all(0.9 < scale < 1.2 for scale in found["scales"])
    assert all(len(alt) > 30 for alt in found["alts"])
    assert found["smallest"] >= 12
    assert found["contrast"] >= 3
