"""The page as a browser lays it out, alone and in MLflow."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.dashboard.after_suite import refresh_runs
from maskedclip_composer.dashboard.write import write_dashboard
from tests.browser import look, mlflow_server, needs_browser
from tests.dashboard.test_callback import train
from tests.dashboard.written import write_run, write_suite

pytestmark = [needs_browser, pytest.mark.slow]

WIDTHS = (1280, 600)
PROBE = """<script>
addEventListener("load", () => {
  const tiles = [...document.querySelectorAll(".tile")].map(tile => tile.getBoundingClientRect());
  const inside = [...document.querySelectorAll(".tile, .tile *, figure, pre")];
  parent.postMessage({
    inner: innerWidth, width: document.documentElement.scrollWidth, tiles: tiles.length,
    overlaps: tiles.filter((a, i) => tiles.some((b, j) => i < j && a.left < b.right && b.left < a.right
      && a.top < b.bottom && b.top < a.bottom)).length,
    hidden: tiles.filter(tile => tile.width < 150 || tile.height < 50 || tile.right > innerWidth + 1).length,
    clipped: inside.filter(item => item.clientWidth && item.scrollWidth > item.clientWidth + 1).length,
    charts: [...document.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width > 200).length,
    broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.alt),
    requests: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !/^data:/.test(name)),
    background: getComputedStyle(document.body).backgroundColor,
  }, "*");
});
</script>"""
OWNER = """<!doctype html><pre id="seen"></pre><script>const all = [];
addEventListener("message", event => { all.push(event.data);
  document.getElementById("seen").textContent = JSON.stringify(all); });</script>"""
FRAME = '<iframe sandbox="allow-scripts" style="border:0;width:{width}px;height:1500px" srcdoc="{page}"></iframe>'


def add_pictures(run: Path) -> None:
    (run / "pictures").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (700, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "pictures" / "ba0000120.png")


def test_nothing_sticks_out_and_nothing_is_asked_for(tmp_path: Path):
    run = write_run(tmp_path / "a_run_whose_name_is_as_long_as_people_make_them_when_they_put_everything_into_it")
    add_pictures(run)
    encoders = {f"encoder_{index}_with_a_name": str(run) for index in range(3)}
    roc = dict.fromkeys(encoders, 0.7)
    write_suite(tmp_path / "eval", encoders, roc, tasks=("APTOS", "IDRiD", "Messidor", "ODIR", "ORIGA", "JSIEC"))
    probed = write_dashboard(run).read_text().replace("</body>", f"{PROBE}</body>")
    frames = [FRAME.format(width=width, page=html.escape(probed)) for width in WIDTHS]
    (tmp_path / "owner.html").write_text(OWNER + "".join(frames))
    dom, told = look((tmp_path / "owner.html").as_uri(), tmp_path, "--dump-dom", "--enable-logging=stderr")
    seen = json.loads(html.unescape(dom.partition('<pre id="seen">')[2].partition("</pre>")[0]))
    assert sorted(one["inner"] for one in seen) == sorted(WIDTHS)
    for one in seen:
        assert one["width"] <= one["inner"]
        assert (one["tiles"], one["overlaps"], one["hidden"]) == (5, 0, 0)
        assert (one["charts"], one["clipped"]) == (12, 0)
        for nothing in ("broken", "requests"):
            assert one[nothing] == [], nothing
    assert "CONSOLE" not in told


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run that was trained, registered, and evaluated."""
    output = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        train(output, TrackingConfig(picture_interval="1ep", register="retina"))
    sources = {"random": f"random:{output / 'tiny'}", "final": str(output / "tiny")}
    refresh_runs(write_suite(output / "eval", sources, {"random": 0.6, "final": 0.8}))
    return output


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[str]:
    with mlflow_server(f"sqlite:///{trained / 'mlflow.db'}", trained) as address:
        yield address


def text_of(dom: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", dom)))


def test_mlflows_runs_page_has_the_run(server: str, tmp_path: Path):
    dom, told = look(f"{server}/#/experiments/1", tmp_path, "--dump-dom", "--enable-logging=stderr")
    text = text_of(dom)
    assert "tiny" in text
    assert re.search(r"\b1 +matching run\b", text)
    assert "Uncaught" not in told


def test_mlflows_page_of_the_run_answers_the_five_questions(trained: Path, server: str, tmp_path: Path):
    run_id = json.loads((trained / "tiny" / "mlflow_run.json").read_text())["run_id"]
    address = f"{server}/#/experiments/1/runs/{run_id}"
    dom, told = look(address, tmp_path, "--dump-dom", "--enable-logging=stderr")
    text = text_of(dom)
    for words in ("Is it learning?", "Is it collapsing?", "How fast is it?", "What did it cost?"):
        assert words in text
    assert "final: the only one evaluated" in text
    assert "ROC 80.0 [78.0, 82.0]" in text
    assert re.search(r'href="[^"]*/artifacts/dashboard.html"', dom)
    assert "downstream/probe/100pct/roc/APTOS 2019" in text
    assert re.search(r"Registered models +retina +v1", text)
    assert "Uncaught" not in told


def test_the_page_opens_in_mlflows_viewer(trained: Path, server: str, tmp_path: Path):
    run_id = json.loads((trained / "tiny" / "mlflow_run.json").read_text())["run_id"]
    picture = tmp_path / "page.png"
    address = f"{server}/#/experiments/1/runs/{run_id}/artifacts/dashboard.html"
    _, told = look(address, tmp_path, f"--screenshot={picture}", "--enable-logging=stderr")
    assert "Uncaught" not in told
    # Where the frame is, text and the green edge of a tile are drawn; an empty frame is white.
    frame = np.asarray(Image.open(picture).convert("RGB"), dtype=int)[300:950, 450:1450]
    assert (frame.max(axis=2) < 100).mean() > 0.005
    assert ((frame[..., 1] - frame[..., 0]) > 60).sum() > 500
