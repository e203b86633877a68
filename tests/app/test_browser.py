"""The app in a real browser, as a reader uses it. Skipped where Chromium is missing.

One server serves the whole file, on a folder of runs of its own. Its models: `photos`, the bundled one, and `digits`, trained
for these tests. Everything is waited for, and found by its role and name.
"""

import io
import re
import shutil
import time
import zipfile

import numpy as np
import psutil
import pytest
from PIL import Image

from ama_core import AMADetector
from ama_core.data import load
from ama_core.runs.folder import list_runs
from ama_core.storage.bundle import PRETRAINED
from benchmarks.app_server import CHROMIUM, DRAWN, FLAGS, app_server
from tests.app.lesson.common import STEPS
from tests.common import REPEATED_IN_CI
from tests.runs.reading import is_running, read_status

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
TIMEOUT = 180_000  # ms; a fresh server imports PyTorch first, and the machine may be busy with a training
PAGES = ("lesson", "densities", "reconstructions", "shell", "simplex", "train", "check", "compare", "benchmark", "about")
# Streamlit itself asks for these beside a page's own path, and finds them at the root.
STREAMLITS_OWN = re.compile(r"/[a-z]+/_stcore/(health|host-config)$")
expect.set_options(timeout=TIMEOUT)
pytestmark = REPEATED_IN_CI


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("browser-runs")


@pytest.fixture(scope="module")
def server(tiny_bundle, tmp_path_factory, runs_folder):
    """The address of a running app; when it ends, no page of it has failed."""
    models = tmp_path_factory.mktemp("browser-models")
    shutil.copytree(tiny_bundle, models / "digits")
    shutil.copytree(PRETRAINED / "photos", models / "photos")
    log = models / "server.log"
    try:
        with app_server(log, AMA_MODELS_DIR=str(models), AMA_RUNS_DIR=str(runs_folder)) as (address, _):
            yield address
    finally:
        for run in list_runs(runs_folder).values():  # what a failed test may have left behind
            if is_running(run):
                psutil.Process(read_status(run)["pid"]).terminate()
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium found on PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def new_tab(browser):
    """Makes tabs of a given width; when the test ends, none of them has an error in its console."""
    errors, contexts = [], []

    def heard(message):
        if message.type == "error" and not STREAMLITS_OWN.search(message.location.get("url", "")):
            errors.append(message.text)

    def make(width=1280, dark=False):
        colours = "dark" if dark else "light"
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=colours))
        page = contexts[-1].new_page()
        page.set_default_timeout(TIMEOUT)
        page.on("console", heard)
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def page(new_tab):
    return new_tab(width=400)


def settled(page) -> None:
    """Wait until the page has been drawn: no script runs, and none has for a moment."""
    page.get_by_role("heading", level=1).wait_for()
    page.evaluate("window.quietSince = null")  # a short run since the last look would go unseen
    page.wait_for_function(DRAWN, arg=700, polling=100)


def assert_sound(page) -> None:
    """No exception on the page, and nothing wider than it."""
    assert page.locator('[data-testid="stException"]').count() == 0
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("""document.querySelector('[data-testid="stMain"]').scrollWidth""") <= width


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG")
    return file.getvalue()


def type_in(page, role: str, name: str, text: str) -> None:
    field = page.get_by_role(role, name=name)
    field.fill(text)
    field.press("Enter")
    settled(page)


# Every page


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_a_phone_and_has_no_error_in_its_console(server, new_tab, path):
    page = new_tab(width=400, dark=True)
    page.goto(f"{server}/{path}")
    settled(page)
    assert_sound(page)


@pytest.mark.parametrize("path", ["densities?ood=textures", "reconstructions?set=gradients"])
def test_a_link_opens_its_view_on_a_phone(server, page, path):
    page.goto(f"{server}/{path}")
    page.get_by_text("What these numbers mean").wait_for()
    page.locator("[data-testid='stPlotlyChart'] svg.main-svg, .ama-table img").first.wait_for()
    assert path in page.url
    assert_sound(page)


def test_a_new_tab_shows_the_same_view(server, new_tab):
    page = new_tab()
    page.goto(f"{server}/shell?model=photos")
    settled(page)
    page.get_by_role("radio", name="inward").click()
    settled(page)
    slider = page.get_by_role("slider", name="δ")
    for _ in range(3):
        slider.press("ArrowRight")
        settled(page)
    type_in(page, "spinbutton", "Seed", "7")
    chosen = slider.input_value()
    page.wait_for_url(re.compile("direction=inward.*seed=7|seed=7.*direction=inward"))
    settled(page)  # its pictures are those of the address

    other = new_tab()
    other.goto(page.url)
    settled(other)
    assert other.get_by_role("slider", name="δ").input_value() == chosen
    assert other.get_by_role("spinbutton", name="Seed").input_value() == "7"
    expect(other.get_by_role("radio", name="inward")).to_be_checked()
    alts = [image.get_attribute("alt") for image in page.get_by_alt_text("Decode of atypical code").all()]
    assert alts
    expect(other.get_by_alt_text("Decode of atypical code")).to_have_count(len(alts))
    assert alts == [image.get_attribute("alt") for image in other.get_by_alt_text("Decode of atypical code").all()]


def test_back_shows_what_was_shown_there(server, new_tab):
    """Streamlit's own entry of the page that was left, which lacks the model, lies between."""
    page = new_tab()
    page.goto(f"{server}/densities?model=digits&alpha=0.1")
    settled(page)
    page.get_by_role("link", name="Simplex").click()
    page.get_by_role("heading", name="Simplex", level=1).wait_for()
    settled(page)
    for _ in range(3):  # which entries lie between, and of which of the two pages, depends on how fast the pages are drawn
        page.go_back()
        page.wait_for_timeout(1000)  # until the page takes notice
        settled(page)
        page.get_by_text("Model digits, normal").wait_for()
        page.wait_for_url(re.compile("model=digits"))
    page.get_by_role("heading", name="Score densities", level=1).wait_for()
    assert "alpha=0.1" in page.url
    page.go_forward()
    settled(page)
    page.get_by_text("Model digits, normal").wait_for()
    page.get_by_role("button", name="Reset this page").click()  # which is not undone
    page.get_by_text("Model photos, normal").wait_for()
    settled(page)
    assert "model=" not in page.url and "alpha=" not in page.url


# The lesson


def test_the_lesson_from_first_to_last_step(server, new_tab):
    page = new_tab()
    page.goto(server)
    page.wait_for_url("**/lesson*")
    for at in range(1, len(STEPS) + 1):
        page.get_by_role("heading", name=f"{at} of {len(STEPS)}").wait_for()
        settled(page)
        assert_sound(page)
        if page.get_by_role("slider", name="Threshold on R").count():
            matrix = page.get_by_role("table").filter(has_text="detected")
            before = matrix.inner_text()
            page.get_by_role("slider", name="Threshold on R").press("End")
            expect(matrix).not_to_have_text(before, use_inner_text=True)
            settled(page)
            # At the right end of the axis nothing of either set is flagged, but for outliers beyond it.
            assert len(re.findall(r"\t\d+ \(0\.\d.%\)", matrix.inner_text())) == 2, matrix.inner_text()
            page.wait_for_url("**cut=*")
        if at < len(STEPS):
            page.get_by_role("button", name="Next").click()
    groups = page.get_by_role("radiogroup").filter(has=page.get_by_role("radio")).filter(has_not_text="Surprise")
    for group in groups.all():
        group.get_by_role("radio").first.click(force=True)
        expect(group.get_by_role("radio").first).to_be_checked()  # at the latest once it is drawn again
        settled(page)
    answered = page.get_by_text(re.compile("^(Right\\.|Not quite\\.)"))
    expect(answered).to_have_count(groups.count())
    assert "step=Quiz" in page.url


def test_the_lesson_by_keyboard_alone(server, new_tab):
    page = new_tab()
    page.goto(f"{server}/lesson?step=Threshold&model=photos")
    settled(page)
    reached = []
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.ariaLabel || '') + ' ' + document.activeElement.innerText"))
        if page.evaluate("document.activeElement.type") == "range":
            break
    assert page.get_by_role("slider", name="Threshold on R").evaluate("slider => slider === document.activeElement"), reached
    for stop in ("Why raw scores fail", "Model", "Reset this page", "Images that the model has never seen"):
        assert any(stop in name for name in reached), (stop, reached)
    matrix = page.get_by_role("table").filter(has_text="detected")
    value, before = page.get_by_role("slider").input_value(), matrix.inner_text()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(matrix).not_to_have_text(before, use_inner_text=True)
    settled(page)
    assert float(page.get_by_role("slider").input_value()) > float(value)
    page.wait_for_url("**cut=*")
    for _ in range(80):
        page.keyboard.press("Tab")
        if "Next" in page.evaluate("document.activeElement.innerText"):
            break
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=f"5 of {len(STEPS)}").wait_for()


def expect_near_the_top(page, heading):
    """On a busy machine the page may still be on its way there."""
    deadline = time.monotonic() + 20
    while not 0 <= (place := heading.bounding_box()["y"]) < 300 and time.monotonic() < deadline:
        page.wait_for_timeout(200)
    assert 0 <= place < 300


@pytest.mark.parametrize("width", [1280, 400])
def test_next_lands_at_the_top_of_the_following_step(server, new_tab, width):
    page = new_tab(width=width)
    page.goto(f"{server}/lesson?step=Threshold&model=photos")
    settled(page)
    for at in range(5, len(STEPS) + 1):
        page.get_by_role("button", name="Next").click()
        heading = page.get_by_role("heading", name=f"{at} of {len(STEPS)}")
        heading.wait_for()
        settled(page)
        expect_near_the_top(page, heading)
        assert heading.evaluate("heading => heading === document.activeElement"), "who reads by ear goes on there as well"
    for at in (len(STEPS) - 1, len(STEPS) - 2):
        page.get_by_role("button", name="Back").click()
        heading = page.get_by_role("heading", name=f"{at} of {len(STEPS)}")
        heading.wait_for()
        settled(page)
        expect_near_the_top(page, heading)
    main = page.get_by_test_id("stMain")
    switch = page.get_by_text("Logarithmic axis")
    switch.scroll_into_view_if_needed()
    before = main.evaluate("main => main.scrollTop")
    switch.click()  # nothing else moves the page
    settled(page)
    assert abs(main.evaluate("main => main.scrollTop") - before) < 60


# Where the line stands on the chart above its slider, and the middle of the slider's thumb, both in pixels; NaN while the page
# puts another chart in the place of this one.
LINE_AND_THUMB = """() => {
    const chart = document.querySelector('.js-plotly-plot'), axis = chart?._fullLayout?.xaxis;
    const x = chart?.data?.find(trace => trace.name.startsWith('your line'))?.x[0];
    if (!axis || x === undefined) return [NaN, NaN];
    const [low, high] = axis.range, place = axis.type === 'log' ? Math.log10(x) : x;
    const line = chart.getBoundingClientRect().left + axis._offset + axis._length * (place - low) / (high - low);
    const thumb = document.querySelector('[data-testid="stSliderThumbValue"]').parentElement.getBoundingClientRect();
    return [line, thumb.left + thumb.width / 2];
}"""


def test_line_slider_matrix_and_sentence_stand_on_one_screen_and_in_line(server, new_tab):
    page = new_tab()
    page.set_viewport_size({"width": 1280, "height": 700})
    page.goto(f"{server}/lesson?step=Cause&model=photos")
    settled(page)
    page.get_by_role("button", name="Next").click()
    page.get_by_role("heading", name=f"4 of {len(STEPS)}").wait_for()
    settled(page)
    expect_near_the_top(page, page.get_by_role("heading", name=f"4 of {len(STEPS)}"))
    slider = page.get_by_role("slider", name="Threshold on R")
    sentence, best = page.get_by_text(re.compile("^It detects")), page.get_by_text("The best threshold:")
    for part in (page.locator(".js-plotly-plot").first, slider, page.get_by_role("table").first, sentence, best):
        box = part.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 700, part
    for times, press in ((1, "Home"), (1, "ArrowRight"), (40, "ArrowRight"), (1, "End")):
        for _ in range(times):
            slider.press(press)
        page.wait_for_function(f"() => {{ const [line, thumb] = ({LINE_AND_THUMB})(); return Math.abs(line - thumb) < 6; }}")


def tick_where(page, comparison: str, value: float) -> float:
    """Wait until the tick of the changed image compares so with `value`, and say where it stands.

    While the page puts another chart in the place of this one there is no tick to compare.
    """
    found = page.wait_for_function(
        """([comparison, value]) => {
            const marks = document.querySelector('.js-plotly-plot')?.data?.filter(trace => trace.mode === 'lines+markers');
            const x = marks?.at(-1)?.x[0];
            const holds = {'>': x > value, '<': x < value, '===': x === value, '!==': x !== value}[comparison];
            return x !== undefined && holds ? {x} : null;
        }""",
        arg=[comparison, value],
    )
    return found.json_value()["x"]


def test_the_reader_moves_a_slider_and_the_tick_follows(server, new_tab):
    page = new_tab()
    page.goto(f"{server}/lesson?step=Cause&model=photos")
    settled(page)
    before, contrast = tick_where(page, ">", 0), page.get_by_role("slider", name="Contrast")
    for _ in range(8):
        contrast.press("ArrowLeft")
    page.get_by_text(re.compile("^R (fell|rose|hardly moved)")).wait_for()
    page.wait_for_url("**contrast=0.6*")
    tick_where(page, "!==", before)
    settled(page)
    changed = tick_where(page, "!==", before)
    page.get_by_role("button", name="Lowest R").click()
    tick_where(page, "<", min(before, changed))
    page.get_by_text(re.compile("^R fell")).wait_for()
    settled(page)
    page.get_by_role("button", name="As it is").click()
    page.get_by_text("Nothing is changed yet").wait_for()
    tick_where(page, "===", before)
    assert_sound(page)


def test_the_saved_lesson_works_without_a_server(server, new_tab, tmp_path):
    page = new_tab()
    page.goto(f"{server}/lesson?step=Quiz&model=digits")
    settled(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the lesson as one HTML file").click()
    download.value.save_as(tmp_path / "lesson.html")
    alone = new_tab(width=400)
    alone.route(re.compile("^https?:"), lambda route: route.abort())
    alone.goto((tmp_path / "lesson.html").as_uri())
    alone.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert alone.locator(".js-plotly-plot").count() == 7
    assert alone.evaluate("document.documentElement.scrollWidth") <= 400


def test_what_the_lesson_shows_goes_along_to_the_densities_and_back(server, new_tab):
    page = new_tab()
    page.goto(f"{server}/lesson?step=Surprise&model=photos&ood=gtsrb")  # a link from before `against`
    settled(page)
    page.get_by_text("about the same").click()
    settled(page)
    page.get_by_role("button", name="Next").click()
    page.get_by_role("heading", name=f"3 of {len(STEPS)}").wait_for()
    settled(page)
    page.get_by_role("link", name="Score densities").click()
    page.get_by_role("heading", name="Score densities").wait_for()
    settled(page)
    expect(page.get_by_text("Choose at least one set")).to_have_count(0)
    page.get_by_text("Model photos, normal").wait_for()
    page.get_by_role("figure", name=re.compile("Densities of R for 3 sets.*GTSRB")).wait_for()

    page.goto(f"{server}/densities?model=photos&ood=gtsrb&ood=textures")
    settled(page)
    page.get_by_role("button", name="Remove Traffic signs (GTSRB)").click()
    page.get_by_role("figure", name=re.compile("Densities of R for 3 sets.*Procedural textures")).wait_for()
    settled(page)
    page.get_by_role("link", name="Why raw scores fail").click()
    page.get_by_role("heading", name=f"1 of {len(STEPS)}").wait_for()
    settled(page)
    expect(page.get_by_role("combobox", name="Images that the model has never seen")).to_have_value("Procedural textures")
    page.get_by_text("Model photos, normal").wait_for()


def test_a_file_that_is_too_large_is_refused_in_sight(server, new_tab, tmp_path, digits):
    for width, dark in ((1280, False), (400, True)):
        page = new_tab(width=width, dark=dark)
        page.goto(f"{server}/check?model=digits")
        settled(page)
        with open(tmp_path / "large.png", "wb") as file:
            file.truncate(51 * 2**20)
        small = [tmp_path / f"{i}.png" for i in range(12)]
        for file, image in zip(small, digits.images):
            file.write_bytes(png(image))
        page.locator('input[type="file"]').first.set_input_files([*small, tmp_path / "large.png"])
        page.get_by_text("of 12 images").wait_for()
        settled(page)
        said = page.get_by_test_id("stFileUploader").evaluate("uploader => getComputedStyle(uploader, '::after').content")
        assert "A file was refused" in said and "50 MB" in said
        refused, rest = page.get_by_text("large.png").bounding_box(), page.get_by_text("0.png").first.bounding_box()
        assert (refused["y"], refused["x"]) < (rest["y"], rest["x"]), "it comes first"
        assert_sound(page)


# The latent shell


def test_a_lasso_on_the_map_gives_a_grid_of_images(server, new_tab):
    page = new_tab()
    page.goto(f"{server}/shell?model=photos")
    settled(page)
    images = page.get_by_alt_text(re.compile("^Image of "))
    before = [image.get_attribute("alt") for image in images.all()]
    page.get_by_role("tab", name="Maps").click()
    chart = page.get_by_role("figure", name="PCA map")
    chart.scroll_into_view_if_needed()
    chart.hover()
    chart.get_by_role("button", name="Lasso Select").click()
    area = chart.locator(".nsewdrag").first.bounding_box()
    place = lambda x, y: (area["x"] + x * area["width"], area["y"] + y * area["height"])  # noqa: E731
    page.mouse.move(*place(0.1, 0.1))
    page.mouse.down()
    for x, y in ((0.9, 0.1), (0.9, 0.9), (0.1, 0.9), (0.1, 0.12)):
        page.mouse.move(*place(x, y), steps=6)
    page.mouse.up()
    expect(page.get_by_text("or look at one end of a set")).to_have_count(0)
    settled(page)
    after = [image.get_attribute("alt") for image in images.all()]
    assert len(after) >= 12 and after != before
    assert_sound(page)


def test_the_delta_slider_changes_the_decodes(server, new_tab):
    page = new_tab()
    page.goto(f"{server}/shell?model=photos&direction=outward&delta=0.5")
    settled(page)
    decodes = page.get_by_alt_text("Decode of atypical code")
    sources = lambda: [image.get_attribute("src") for image in decodes.all()]  # noqa: E731
    before = sources()
    page.get_by_role("slider", name="δ").press("End")
    expect(decodes.first).not_to_have_attribute("src", before[0])
    settled(page)
    assert len(before) == len(sources()) and not set(before) & set(sources())


# Checking images


def test_an_upload_is_scored(server, page, tiny_bundle):
    image = load("digits", "test").images[7]
    page.goto(f"{server}/check?score=R&model=digits")
    page.locator('input[type="file"]').first.set_input_files(
        [
            {"name": "seven.png", "mimeType": "image/png", "buffer": png(image)},
            {"name": "bad.png", "mimeType": "image/png", "buffer": b"no image"},
        ]
    )
    page.get_by_role("heading", name="seven.png").wait_for()
    page.get_by_text("could not be scored").wait_for()
    scores = AMADetector.load(tiny_bundle).scores(image[None])
    shown = page.locator('[data-testid="stMetricValue"]').all_inner_texts()
    assert float(shown[0]) == pytest.approx(scores["R"][0], rel=1e-3)
    assert float(shown[1]) == pytest.approx(scores["p_R"][0], abs=1e-4)
    assert_sound(page)


def test_a_row_of_the_table_is_chosen_by_keyboard_and_by_mouse(server, page, tiny_bundle):
    images = load("digits", "test").images[:4]
    scores = AMADetector.load(tiny_bundle).scores(images)["R"]
    names = [f"{i}.png" for i in np.argsort(-scores, kind="stable")]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for i, image in enumerate(images):
            archive.writestr(f"{i}.png", png(image))
    page.goto(f"{server}/check?score=R&model=digits")
    page.locator('input[type="file"]').first.set_input_files(
        [{"name": "all.zip", "mimeType": "application/zip", "buffer": content.getvalue()}]
    )
    page.get_by_role("heading", name=f"all.zip/{names[0]}").wait_for()
    page.get_by_text("most similar training images").wait_for()
    page.get_by_text("What these numbers mean").wait_for()
    settled(page)  # nothing moves any more
    table = page.locator('[data-testid="stDataFrame"]').last  # above it stands, folded away, what the model finds
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    table.locator('[data-testid="data-grid-canvas"]').focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Shift+Space"):
        page.keyboard.press(key)
    page.get_by_role("heading", name=f"all.zip/{names[3]}").wait_for()
    page.mouse.click(box["x"] + 15, box["y"] + 40 + 52 + 20)
    page.get_by_role("heading", name=f"all.zip/{names[1]}").wait_for()
    assert_sound(page)


# Training


def test_a_tiny_run_is_watched_through_a_reload_until_it_is_a_model(server, new_tab, runs_folder):
    page = new_tab()
    page.goto(f"{server}/train?data=digits&preset=tiny")
    settled(page)
    type_in(page, "spinbutton", "Length: training steps", "400")
    page.locator("summary").filter(has_text="Expert").click()
    small = {
        "Networks": {"Numbers in a code": 8, "Encoder width": 8, "Generator width": 8, "Critic width": 8},
        "Training": {"Images per step": 16},
    }
    for tab, values in small.items():
        page.get_by_role("tab", name=tab).click()
        for name, value in values.items():
            type_in(page, "spinbutton", name, str(value))
    page.get_by_text("Afterwards score every data set").click()
    settled(page)
    type_in(page, "textbox", "Name of the run", "seen")
    page.get_by_role("button", name="Train", exact=True).click()
    page.get_by_text("seen was queued").wait_for()

    page.get_by_text(re.compile(r"step \d+ of 400")).wait_for()
    page.reload()
    page.get_by_text(re.compile(r"step \d+ of 400")).wait_for()
    page.get_by_alt_text(re.compile("four normal images and four of .* their reconstructions below")).wait_for()
    page.get_by_role("figure", name=re.compile("Densities of R of held-out normal images")).wait_for()
    page.get_by_role("figure", name=re.compile("AUROC against")).wait_for()
    page.locator("summary").filter(has_text="Losses and all other curves").click()
    page.get_by_role("figure", name=re.compile("Losses over the steps")).wait_for()
    page.get_by_text("Its model can be chosen on every page.").wait_for()
    assert read_status(runs_folder / "seen")["step"] == 400
    assert_sound(page)

    page.get_by_role("link", name="Check images with it").click()
    page.wait_for_url("**/check?*model=seen*")
    settled(page)
    page.get_by_text(re.compile("Model seen, normal = Handwritten digits")).wait_for()
    page.locator('input[type="file"]').first.set_input_files(
        [{"name": "three.png", "mimeType": "image/png", "buffer": png(load("digits", "test").images[3])}]
    )
    page.get_by_role("heading", name="three.png").wait_for()
    assert_sound(page)


def test_an_archive_without_images_is_refused_in_words(server, page, runs_folder):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("notes.txt", "no image")
    page.goto(f"{server}/train?data=my+own+images")
    settled(page)
    page.locator("summary").filter(has_text="Expert").click()
    type_in(page, "textbox", "Name of the run", "empty")
    page.locator('input[type="file"]').set_input_files(
        [{"name": "none.zip", "mimeType": "application/zip", "buffer": content.getvalue()}]
    )
    page.get_by_text("Kept on this computer").wait_for()
    settled(page)
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_text("holds no readable image").last).to_be_visible()
    assert page.get_by_role("textbox", name="Name of the run").input_value() == "empty"
    assert not (runs_folder / "empty").exists()
    assert_sound(page)
