#!/usr/bin/env python3
"""Opens report pages of perf/ in headless Chromium and fails if one is not readable.

    tests/report_page.py [--install] [--screenshots FOLDER] PAGE.html...

Every page is opened at 400 and at 1200 pixels' width, in light and in dark mode. A page fails if it

- logs anything to the console, throws an error, or requests anything but itself,
- is wider than the window,
- has a text of less than MIN_PIXELS, or with less contrast to the page than MIN_CONTRAST,
- has no plots, an empty plot, a plot whose texts overlap or leave it.

--install installs Chromium and its driver by apt, and Selenium into target/report.
"""

import argparse
import base64
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / "target" / "report" / "venv"
SELENIUM = "selenium==4.36.0"
WIDTHS = [400, 1200]
MIN_PIXELS = 10
MIN_CONTRAST = 3

# Measures the page; plots are [{label, shapes, width, height, texts: [{text, pixels, box}]}].
MEASURE = """
const box = (element) => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    return [left, top, right, bottom];
};
for (const details of document.querySelectorAll("details")) details.open = true;
const scale = (svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
const plots = [...document.querySelectorAll("svg")].map((svg) => ({
    label: svg.getAttribute("aria-label") || "",
    shapes: [...svg.querySelectorAll("rect, polyline, path, circle, line")].filter((shape) => {
        const { width, height } = shape.getBoundingClientRect();
        return width + height > 1;
    }).length,
    box: box(svg),
    texts: [...svg.querySelectorAll("text")].map((text) => ({
        text: text.textContent.trim(),
        pixels: parseFloat(getComputedStyle(text).fontSize) * scale(svg),
        box: box(text),
    })),
}));
const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const texts = [];
while (words.nextNode()) {
    const parent = words.currentNode.parentElement;
    if (parent.closest("svg, style") || !words.currentNode.textContent.trim()) continue;
    const style = getComputedStyle(parent);
    const colour = (element) => getComputedStyle(element).backgroundColor;
    let back = parent;
    while (back && colour(back) === "rgba(0, 0, 0, 0)") back = back.parentElement;
    texts.push({
        text: words.currentNode.textContent.trim(),
        pixels: parseFloat(style.fontSize),
        colours: [style.color, back ? colour(back) : "rgb(255, 255, 255)"],
    });
}
return {
    plots, texts,
    width: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight,
    requests: performance.getEntriesByType("resource").map((entry) => entry.name),
};
"""


def install():
    """Installs the browser and its driver, and creates the environment of this script."""
    if not all(pathlib.Path("/usr/bin", name).exists() for name in ["chromium", "chromedriver"]):
        script = 'source "$0" && install_packages chromium chromium-driver fonts-dejavu-core'
        subprocess.run(["bash", "-euc", script, ROOT / "tests/support/tools.sh"], check=True)
    if not (ENVIRONMENT / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "--disable-pip-version-check", SELENIUM], check=True)


def browser(profile):
    """A headless Chromium with this empty folder as its profile."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for option in [
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "hide-scrollbars", f"user-data-dir={profile}",
    ]:  # fmt: skip
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path="/usr/bin/chromedriver")
    return webdriver.Chrome(options=options, service=service)


def contrast(colours):
    """The contrast of two colours by WCAG, from 1 to 21."""

    def luminance(colour):
        channels = colour[colour.index("(") + 1 : -1].split(",")[:3]
        linear = [
            share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
            for share in (float(channel) / 255 for channel in channels)
        ]
        return sum(weight * share for weight, share in zip([0.2126, 0.7152, 0.0722], linear))

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


def overlap(one, other):
    """Whether two boxes share more than a pixel in both directions."""
    return all(
        min(one[side + 2], other[side + 2]) - max(one[side], other[side]) > 1 for side in (0, 1)
    )


def faults_of_plot(plot):
    """What is wrong with a plot."""
    left, top, right, bottom = plot["box"]
    if plot["shapes"] < 3 or right - left < 100 or bottom - top < 50:
        yield f"draws nothing: {plot['shapes']} shapes in {right - left:.0f} x {bottom - top:.0f}"
    if not plot["texts"]:
        yield "has no texts"
    for text in (text for text in plot["texts"] if text["text"]):
        x, y, to_x, to_y = text["box"]
        if x < left - 1 or y < top - 1 or to_x > right + 1 or to_y > bottom + 1:
            yield f"does not contain its text {text['text']!r}"
        if text["pixels"] < MIN_PIXELS:
            yield f"has a text of {text['pixels']:.1f} pixels: {text['text']!r}"
    for one, other in itertools.combinations(plot["texts"], 2):
        if overlap(one["box"], other["box"]):
            yield f"has overlapping texts: {one['text']!r} and {other['text']!r}"


def faults(page, width, logs):
    """What is wrong with a page, as measured in a window of this width."""
    for log in logs:
        yield f"the console says: {log['message']}"
    for request in page["requests"]:
        yield f"the page requests {request}"
    if page["width"] > width:
        yield f"the page is {page['width']} pixels wide"
    for text in page["texts"]:
        if text["pixels"] < MIN_PIXELS:
            yield f"a text has {text['pixels']} pixels: {text['text']!r}"
        if contrast(text["colours"]) < MIN_CONTRAST:
            yield f"a text has the colours {text['colours']}: {text['text']!r}"
    if not page["plots"]:
        yield "the page has no plots"
    for plot in page["plots"]:
        for fault in faults_of_plot(plot):
            yield f"the plot {plot['label']!r} {fault}"


def check(driver, path, screenshots):
    """Prints what is wrong with a page; returns how much that is."""
    count = 0
    for width, scheme in itertools.product(WIDTHS, ["light", "dark"]):
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(path.resolve().as_uri())
        page = driver.execute_script(MEASURE)
        found = list(faults(page, width, driver.get_log("browser")))
        for fault in found:
            print(f"{path} at {width} pixels, {scheme}: {fault}")
        count += len(found)
        texts = sum(len(plot["texts"]) for plot in page["plots"])
        print(
            f"{path.name}, {width} pixels, {scheme}: {len(page['plots'])} plots with {texts} texts"
        )
        if screenshots:
            clip = {"x": 0, "y": 0, "width": width, "height": page["height"], "scale": 1}
            options = {"captureBeyondViewport": True, "clip": clip}
            picture = driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
            name = f"{path.stem}-{width}-{scheme}.png"
            (screenshots / name).write_bytes(base64.b64decode(picture))
    return count


def main():
    """Checks the pages that are named on the command line."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("pages", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    python = ENVIRONMENT / "bin" / "python"
    if args.install:
        install()
    if pathlib.Path(sys.prefix) != ENVIRONMENT and python.exists():
        arguments = [argument for argument in sys.argv[1:] if argument != "--install"]
        os.execv(python, [python, __file__, *arguments])
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(profile)
        try:
            count = sum([check(driver, page, args.screenshots) for page in args.pages])
        finally:
            driver.quit()
    sys.exit(f"{count} faults" if count else 0)


if __name__ == "__main__":
    main()
