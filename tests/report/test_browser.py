"""The page as a browser lays it out, inside a frame like that of MLflow's viewer."""

import html
import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from maskedclip_composer.report.write import write_report
from tests.report.test_write import add_pictures

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")

# Tells the frame's owner what it sees, once all pictures are there; without waiting for anything more, since headless
# Chromium does not wait with it.
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, open = root.scrollWidth, images = [...document.images];
  const boxes = [...document.querySelectorAll(".box")];
  const wide = boxes.filter(box => box.scrollWidth > box.clientWidth);
  wide.forEach(box => { box.scrollLeft = 60; });
  const left = box => box.querySelector("tbody tr:not(.section) th").getBoundingClientRect().left;
  const fold = () => {
    document.querySelectorAll("details").forEach(item => { item.open = false; });
    return root.scrollWidth;
  };
  parent.postMessage(JSON.stringify({
    inner: innerWidth, open,
    images: images.length, broken: images.filter(image => !image.naturalWidth).map(image => image.alt),
    boxes: boxes.length, wide: wide.length,
    moved: wide.filter(box => Math.abs(left(box) - box.getBoundingClientRect().left) > 2).length,
    requests: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !/^data:/.test(name)),
    background: getComputedStyle(document.body).backgroundColor, text: getComputedStyle(document.body).color,
    table: document.querySelector("table").innerText,
    folded: fold(),
  }), "*");
});
</script>"""
OWNER = """<!doctype html><body style="margin:0"><pre id="seen"></pre>
<script>addEventListener("message", event => { document.getElementById("seen").textContent = event.data; });</script>
<iframe sandbox="allow-scripts" style="border:0;width:WIDTHpx;height:2000px" srcdoc="PAGE"></iframe>"""


@pytest.fixture(scope="module")
def report(whole, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "suite"
    shutil.copytree(whole, folder)
    add_pictures(folder)
    return write_report(folder, quoted=True, draws=200)


def look(page: Path, width: int, folder: Path, *flags: str) -> dict:
    """Open the page in a frame of that width and return what the probe saw."""
    assert BROWSER is not None
    probed = page.read_text().replace("</body>", f"{PROBE}</body>")
    probed = probed.replace("<details>", "<details open>").replace(' loading="lazy"', "")
    owner = folder / "owner.html"
    owner.write_text(OWNER.replace("WIDTH", str(width)).replace("PAGE", html.escape(probed)))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", f"--user-data-dir={folder / 'profile'}", "--window-size=1400,2000"]
    # A frame in a process of its own is not waited for.
    command += ["--disable-features=IsolateSandboxedIframes"]
    command += ["--virtual-time-budget=10000", *flags, "--dump-dom", owner.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    seen = done.stdout.partition('<pre id="seen">')[2].partition("</pre>")[0]
    assert seen, done.stderr[-2000:]
    return json.loads(html.unescape(seen))


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_and_all_is_shown(report, width, tmp_path):
    seen = look(report, width, tmp_path)
    assert seen["inner"] == width
    assert seen["folded"] <= width
    assert seen["open"] <= width
    assert seen["images"] == 6
    assert seen["broken"] == []
    assert seen["requests"] == []
    assert seen["boxes"] == 2 * 4 + 2  # four tables per protocol, two lists of classes
    assert seen["wide"] >= (8 if width == 390 else 2)  # these scroll in themselves,
    assert seen["moved"] == 0  # and their first column stays
    table = pd.read_csv(report.with_name("table1.csv"))
    first = table[(table["Protocol"] == "finetune") & (table["Source"] == "measured")]
    for column in ("APTOS2019 ROC", "APTOS2019 PRC", "ODIR-5K ROC", "Avg PRC"):
        for value in first[column]:
            assert f"{100 * value:.1f}" in seen["table"]
    assert "mine <b>&|_1" in seen["table"]


@pytest.mark.slow
def test_a_dark_screen_gets_a_dark_page(report, tmp_path):
    dark = look(report, 1280, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert dark["background"] == "rgb(22, 24, 27)"
    assert dark["text"] == "rgb(221, 221, 221)"
