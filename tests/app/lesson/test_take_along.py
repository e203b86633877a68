"""What the lesson gives to take along: itself as one file, and a class whose links open what they promise."""

import re
from html import escape
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from tests.app.lesson.common import FAILS, STEPS, WORKS, taken
from tests.common import APP, ROOT


def test_the_saved_lesson_holds_every_chart_once_the_library_and_what_the_steps_say(open_page, told):
    told({"textures": FAILS, "gradients": WORKS})
    taken_aways = [taken(open_page("lesson", step=step)) for step in STEPS if step != "Surprise"]
    open_page("lesson")  # puts the app's modules on the path
    import cache
    import controls
    from lesson import save
    from lesson.case import case_of
    from lesson.steps import STEPS as ALL

    folder = cache.models()["digits"]
    view = controls.View("digits", folder, cache.detector(folder), "T", 0.05)
    aurocs = cache.aurocs(folder)
    text = save.document({name: case_of(view, step.choose(aurocs)) for name, step in ALL.items()})
    assert text.count('class="plotly-graph-div"') == 7 and text.count("Plotly.newPlot(") >= 7
    assert len(text) < 12e6 and text.count("plotly.js v") == 1, "one copy of the library"
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="?https?:', text), "no network"
    for sentence in taken_aways:
        assert escape(sentence.split("**")[1]) in text


def links() -> list[str]:
    text = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    return re.findall(r"\(http://localhost:8501/([^)\s]+)\)", text)


@pytest.mark.parametrize("link", links())
def test_a_link_of_the_class_opens_its_view(monkeypatch, link):
    path, _, query = link.partition("?")
    asked = {key: value[0] if len(value) == 1 else value for key, value in parse_qs(query).items()}
    monkeypatch.delenv("AMA_MODELS_DIR", raising=False)
    monkeypatch.syspath_prepend(str(APP))
    at = AppTest.from_file(APP / "main.py", default_timeout=120)
    at.query_params.update(asked)
    at.switch_page(f"views/{path}.py").run()
    assert not at.exception and not at.error
    assert not [w for w in at.warning if "There is no model called" in w.value]
    widgets = {
        w.key: w
        for kind in (at.selectbox, at.multiselect, at.slider, at.select_slider, at.toggle, at.number_input, at.button_group)
        for w in kind
    }
    for key, value in asked.items():
        shown = widgets[key].value
        if isinstance(shown, (int, float)) and not isinstance(shown, bool):
            assert shown == pytest.approx(float(value), rel=0.05), key
        else:
            assert (shown if isinstance(shown, list) else str(shown).lower()) in (value, [value], str(value).lower()), key
