"""What pages share: the model picker, the score and false-alarm rate, URL state and reset, downloads, explanations, errors."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlencode

import access
import cache
import charts
import palette
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from ama_core import AMAError
from ama_core.data import catalog, class_of, label_of
from ama_core.data.decode import SUFFIXES
from ama_core.detectors.ama.scores import Calibration
from ama_core.detectors.base import AnomalyDetector, Score
from ama_core.detectors.conformal import out_of_reach
from ama_core.evaluation.protocol import REST, available_sets
from ama_core.paper import published
from ama_core.settings import FALSE_ALARM_RATE
from ama_core.storage.files import csv_cell

DEFAULT_MODELS = ("cifar10", "photos")  # the first of these that is here: raw scores fail on both
# Endings of the image files that can be uploaded, the usual ones first.
IMAGE_TYPES = sorted((suffix[1:] for suffix in SUFFIXES), key=lambda kind: (kind not in ("png", "jpg", "jpeg", "webp"), kind))
ALPHAS = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
ONE, MANY = "against", "ood"  # the choice of one OOD set and of several; one key for both would mix up their values
SETS_KEYS = {"lesson": ONE, "densities": MANY}  # page -> how it calls its choice
LEADING = ("svhn", "house_numbers", "gtsrb")  # the paper's case, then what is like it: the sets to begin with
HOPEFUL = ("mnist",)  # where R works, if it does there: the example of most papers
FAILING = ("svhn",)  # the paper's example of a raw score that fails, if it does there
OFFERED = 12  # models that a page names where the chosen one cannot serve it
TRAIN_COMMAND = "python -m ama_core train photos --preset tiny --out runs/photos"
PLAIN = "-plain"  # ends the name of a model trained with the plain-Wasserstein ablation

# What a page may need of a model, beside its scores -> in words; keys of CAPABILITIES, and `critic`, a method of AMA alone.
ABILITIES = {
    "reconstruct": "reconstructs images",
    "encode": "turns images into codes",
    "decode": "turns codes into images",
    "localise": "says where in an image it sees something unusual",
    "features": "compares images by their features",
    "critic": "has a critic that compares two images",
}
P_VALUE = (
    "**p-value**: the fraction of held-out normal images that look at least as unusual. Flagging p ≤ α raises false alarms on "
    "at most a fraction α of normal images."
)
P_EQUATION = r"p(x) = \frac{1 + \#\{\text{calibration score} \ge s(x)\}}{n + 1}"


@dataclass(frozen=True)
class View:
    """What the reader looks at: a model, the score that decides, and the false-alarm rate."""

    name: str
    folder: Path
    detector: AnomalyDetector
    score: str
    alpha: float

    @property
    def normal(self) -> str | None:
        """The name of the data set that the model was trained on; None where it does not say."""
        return self.detector.normal.name if self.detector.normal else None

    @property
    def of_r(self) -> Calibration | None:
        """Mean, spread and values of R of the training images, and the band of A; None where the model has no such scores."""
        return cache.statistics_of_r(self.detector)

    def scores(self, *names: str) -> list[Score]:
        """The model's own scores; or those of these names, each once."""
        found = {score.name: score for score in self.detector.SCORES}
        return [found[name] for name in dict.fromkeys(names or found)]


def page(title: str, lead: str, *, scoring: bool = True, needs: Sequence[str] = ()) -> View:
    """Heading and shared controls of a page; stops with a helpful panel where no model can serve it.

    Args:
        scoring: offer the score that decides and the false-alarm rate; otherwise they are the model's own and 5 %, unmentioned.
        needs: what a model must be able to do: keys of ABILITIES, and names of scores. Others are not offered.

    Raises:
        AMAError: the chosen model cannot be read.
    """
    heading(title, lead)
    st.session_state.update(st.session_state.pop("to-choose", {}))
    models = cache.models()
    if not models:
        _no_model()
    asked = st.session_state.get("model") or st.query_params.get("model")
    able = {name: folder for name, folder in models.items() if not lacking(folder, needs)}
    if not able or (asked in models and asked not in able):
        _cannot(asked if asked in models else next(iter(models)), models, able, needs)
    names = list(able)
    with st.sidebar:
        first = next((n for n in DEFAULT_MODELS if n in names), names[0])
        name = choose(st.selectbox, "model", "Model", names, first, carried=True)
        own = cache.kind_of(able[name])
        score, alpha = own.decides, FALSE_ALARM_RATE
        if scoring:
            score = choose(
                st.segmented_control,
                "score",
                "Score that decides",
                cache.score_names(able[name]),
                own.decides,
                required=True,
                help="The score that gives the p-values, the verdicts and the order of the images.",
                carried=True,
            )
            alpha = false_alarm_rate(cache.false_alarm_rate(able[name]))
        reset_button()
    if asked and asked not in models:
        st.warning(f"There is no model called {literal(asked)} here, so this shows **{literal(name)}**.")
    detector = cache.detector(able[name])
    n = len(detector.held_out_scores_[score])
    normal = label_of(detector.normal.name, detector.normal.label) if detector.normal else "unknown data"
    kind = literal(detector.title)
    st.caption(f"Model **{literal(name)}**, normal = {literal(normal)}; {kind}, calibrated on {n:,} held-out images.")
    if scoring:
        within_reach(n, alpha)
    return View(name, able[name], detector, score, alpha)


def lacking(folder: Path, needs: Sequence[str]) -> list[str]:
    """Which of a page's `needs` a model lacks; none where the model cannot be read, which is then said in its place."""
    try:
        kind, scores = cache.kind_of(folder), cache.score_names(folder)
    except AMAError:
        return []
    can = {*kind.can(), *scores, *(["critic"] if callable(getattr(kind, "critic", None)) else [])}
    return [need for need in needs if need not in can]


def _cannot(name: str, models: Mapping[str, Path], able: Mapping[str, Path], needs: Sequence[str]) -> None:
    """The sentence for a model that a page cannot be drawn of, and the way to those that can; ends the page."""
    missing = lacking(models[name], needs)
    does = [ABILITIES[need] for need in missing if need in ABILITIES]
    scores = [need for need in missing if need not in ABILITIES]
    does += [f"gives the score{'s' * (len(scores) > 1)} {listed(scores)}"] if scores else []
    others = "Choose one that does:" if able else "None of the models here does. Train one, then reload this page:"
    st.info(
        f"This page needs a model that {listed(does)}; **{literal(name)}** ({literal(cache.kind_of(models[name]).title)}) does "
        f"not. {others}",
        icon=":material/block:",
    )
    with st.sidebar:
        if able:
            choose(st.selectbox, "model", "Model", list(able), None, placeholder="Choose a model")
        reset_button()
    if not able:
        st.code(TRAIN_COMMAND, language="bash")
    with st.container(horizontal=True):
        for other in list(able)[:OFFERED]:
            st.button(other, key=f"able-{other}", on_click=st.session_state.update, args=({"model": other},))
    st.stop()


def heading(title: str, lead: str) -> None:
    """Title and first sentence of a page; what it offers from here on is known to the reset button."""
    st.session_state["defaults"] = {}
    st.title(title)
    st.markdown(lead)


def reset_button() -> None:
    """Brings the page's defaults back, and says that the view is a link."""
    st.button("Reset this page", icon=":material/restart_alt:", on_click=_reset, width="stretch")
    st.caption("The address bar holds this view: copy the link to share it.")


def false_alarm_rate(usual: float = FALSE_ALARM_RATE) -> float:
    """The choice of alpha; `usual`: the default, such as the model's own rate."""
    return choose(
        st.select_slider,
        "alpha",
        "False-alarm rate α",
        sorted({*ALPHAS, usual}),
        usual,
        help="The fraction of normal images that you accept being flagged.",
        carried=True,
    )


def within_reach(n: int, alpha: float, nothing: str = "nothing can be flagged") -> bool:
    """Whether n calibration images allow to flag anything at alpha; warns that `nothing` is so where they do not."""
    why = out_of_reach(n, alpha, nothing, percent)
    if why:
        st.warning(f"{why} Choose a larger rate, or calibrate on more images.")
    return why is None


def choose(widget, key: str, label: str, options: Sequence, default: Any, *, carried: bool = False, **more: Any) -> Any:
    """A selection that lives in the URL under `key` and that the reset button knows.

    carried: what the reader chose goes along to other pages, see `on_arrival`.
    """
    st.session_state["defaults"][key] = default
    before = st.session_state.get(key)  # perhaps of another model, which has what this one lacks
    if any(value not in options for value in (before if isinstance(before, list) else [before])):
        st.session_state.pop(key, None)
    if widget is st.selectbox:
        more["index"] = None if default is None else list(options).index(default)
    elif widget is st.select_slider:
        more["value"] = default
    else:
        more["default"] = default
    value = widget(label, options, key=key, bind="query-params", **more)
    kept = st.session_state.setdefault("kept", {})
    if carried and value != default:
        kept[key] = value
    elif carried and kept.get(key) != value:  # back to the default
        kept.pop(key, None)
    return value


def choose_set(key: str, label: str, names: Sequence[str], default: str, **more: Any) -> str:
    """One data set, shown by its title; the address holds its name."""
    return choose_shown(key, label, names, default, title_of, **more)


def choose_shown(key: str, label: str, names: Sequence[str], default: str, shown: Callable[[str], str], **more: Any) -> str:
    """One of several things that are shown by other words than the address holds."""
    _from_address(key, names, default, lambda asked: asked[0])
    value = st.selectbox(label, names, key=key, format_func=shown, **more)
    return _to_address(key, value, [value], default)


def choose_sets(key: str, label: str, names: Sequence[str], default: Sequence[str], **more: Any) -> list[str]:
    """Several data sets, as `choose_set`."""
    _from_address(key, names, list(default), list)
    value = st.multiselect(label, names, key=key, format_func=title_of, **more)
    return _to_address(key, value, value, list(default))


def _from_address(key: str, names: Sequence[str], default: Any, take: Callable[[list[str]], Any]) -> None:
    """Sets a choice to what the address says where that is new, and to the default where it is impossible.

    Bound to the address, as by `choose`, a widget would write there what its options are shown as.
    """
    st.session_state["defaults"][key] = default
    asked, known = st.query_params.get_all(key), f"address-{key}"
    if asked != st.session_state.get(known, []) or key not in st.session_state:  # the latter: back from another page
        possible = [name for name in asked if name in names]
        st.session_state[key] = take(possible) if possible else default
    before = st.session_state.get(key)
    if key not in st.session_state or any(n not in names for n in (before if isinstance(before, list) else [before])):
        st.session_state[key] = default


def _to_address(key: str, value: Any, words: list[str], default: Any) -> Any:
    words = [] if value == default else words
    if words:
        st.query_params[key] = words
    elif key in st.query_params:
        del st.query_params[key]
    st.session_state[f"address-{key}"] = words
    return value


def keep_sets(shown: Sequence[str], default: Sequence[str], *, one: bool = False) -> None:
    """The OOD sets that a page shows go along to the others; with `one`, of those that went along the shown one comes first."""
    kept = st.session_state.get("kept-sets", [])
    if one and shown[0] in kept:
        st.session_state["kept-sets"] = [*shown, *(name for name in kept if name != shown[0])]
    else:
        st.session_state["kept-sets"] = [] if list(shown) == list(default) else list(shown)


def on_arrival(page: str) -> dict[str, Any]:
    """What the address of a page should say besides, where the reader came from another page: what was shown goes along."""
    arrived = st.session_state.get("shown-page") not in (None, page)
    st.session_state["shown-page"] = page
    kept = dict(st.session_state.get("kept", {}))
    if arrived:
        st.session_state["in-address"] = set(st.query_params) | set(kept)
    else:
        _stay(kept)
        kept = {}
    sets = st.session_state.get("kept-sets") if arrived else None
    if sets and page in SETS_KEYS:
        key = SETS_KEYS[page]
        kept[key] = sets if key == MANY else sets[0]
    if page == "lesson" and MANY in st.query_params:  # a link from before the lesson's choice had a name of its own
        kept[ONE] = st.query_params[MANY]
    return {key: value for key, value in kept.items() if key not in st.query_params}


def _stay(kept: Mapping[str, Any]) -> None:
    """On the same page, what was shown stays where the address lost it.

    Leaving a page, Streamlit puts its address without what the widgets are bound to into the history. Where "Back" ends there,
    the widgets still hold what was shown, unlike after a choice or a reset.
    """
    before = set(st.session_state.get("in-address", ())).intersection(st.session_state.get("defaults", ()))  # drawn here
    now = set(st.query_params)
    lost = {k: v for k, v in kept.items() if k in before - now and st.session_state.get(k) == v}
    st.session_state.update(lost)
    again = st.session_state.pop("staying", False)
    st.session_state["in-address"] = now | set(lost)
    if lost and not again:  # in the run of "Back" itself the address decides; in the next one what is set here does
        st.session_state["staying"] = True
        st.rerun()


def number(key: str, label: str, highest: int, *, lowest: int = 0, default: int | None = None, **more: Any) -> int:
    """An integer from `lowest` (also the default) to `highest` that lives in the URL under `key`."""
    default = lowest if default is None else min(default, highest)
    st.session_state["defaults"][key] = float(default)
    # An input of floats: of whole numbers, Streamlit converts what an address holds before it checks it, and fails on 1e999.
    bounds = (float(lowest), float(highest), float(default))
    return round(st.number_input(label, *bounds, step=1.0, format="%.0f", key=key, bind="query-params", **more))


def optional_number(key: str, label: str, step: float, **more: Any) -> float | None:
    """A number that may be left open and lives in the URL under `key`."""
    st.session_state["defaults"][key] = None
    return st.number_input(label, value=None, step=step, format="%.6g", key=key, bind="query-params", **more)


def slider(key: str, label: str, low: float, high: float, default: float, step: float, **more: Any) -> float:
    """A number between `low` and `high` that lives in the URL under `key`."""
    st.session_state["defaults"][key] = default
    return st.slider(label, low, high, default, step, key=key, bind="query-params", **more)


def switch(key: str, label: str, default: bool, **more: Any) -> bool:
    """A toggle that lives in the URL under `key`."""
    st.session_state["defaults"][key] = default
    return st.toggle(label, default, key=key, bind="query-params", **more)


def link(page: str, label: str, icon: str, **state: Any) -> None:
    """A link to another page of the app that opens it on this view; `state`: what its address holds."""
    # In one parameter: Streamlit drops from a link what widgets of the page that it leaves are bound to. See main.py.
    packed = {"view": urlencode(state, doseq=True)} if state else {}
    st.page_link(f"views/{page}.py", label=label, icon=f":material/{icon}:", query_params=packed)


def open_check(model: str, alpha: float, score: str) -> None:
    """Opens the page Check on a model and one of its scores, from any page, that one too; ends this run of the script."""
    st.session_state.setdefault("kept", {}).pop("score", None)  # of another detector
    if st.session_state.get("shown-page") == "check":  # its address belongs to its widgets, which are drawn already
        st.session_state["to-choose"] = {"model": model, "alpha": alpha, "score": score}
        st.rerun()
    st.switch_page("views/check.py", query_params={"model": model, "alpha": f"{alpha:g}", "score": score})


def upload(label: str, kinds: Sequence[str], key: str, **more: Any) -> Any:
    """A file uploader, `st.file_uploader`, that says outside its list when a file was refused.

    Too large a file never reaches the server, and Streamlit says so only beside its name, in a list that scrolls.
    """
    limit = st.get_option("server.maxUploadSize")
    with st.container(gap=None):
        st.html(
            f"""<style>
            [data-testid="stFileUploader"]:has([data-testid="stFileChip"] [role="alert"])::after {{
                content: "A file was refused: the first one of the list. A file may have at most {limit} MB.";
                display: block; margin-top: .5rem; padding: .75rem 1rem; border-radius: .5rem; font-size: .95rem;
                background: rgba(213, 94, 0, .14); border-left: 4px solid {palette.VERMILLION};
            }}
            [data-testid="stFileChips"] > div:has([role="alert"]) {{ order: -1; }}
            </style>"""
        )
        return st.file_uploader(label, kinds, key=key, **more)


def scroll_to(anchor: str, now: bool) -> None:
    """Where `now`, brings the heading with this anchor to the top of the window, and the focus with it."""
    # The browser runs a script whose text is new to it, hence the count. The element is there in any case, so that what follows
    # keeps its place.
    times = st.session_state["scrolled"] = st.session_state.get("scrolled", 0) + now
    # Again and again for a second, since what is drawn later moves it, unless the reader moves meanwhile.
    go = (
        f"/* {times} */ {{ const find = () => document.getElementById('{anchor}'); let left = 6;"
        "const stop = () => left = 0; for (const kind of ['wheel', 'touchstart', 'keydown', 'pointerdown'])"
        " addEventListener(kind, stop, {once: true});"
        "find().tabIndex = -1; find().focus({preventScroll: true});"
        "const go = () => { if (left-- > 0) { find()?.scrollIntoView({block: 'start'}); setTimeout(go, 200); } }; go(); }"
    )
    with st.container(height=1, border=False, gap=None):
        st.html(f"<div hidden></div><script>{go if now else ''}</script>", unsafe_allow_javascript=True)


def generation() -> int:
    """How often the page was reset: part of the keys of widgets that can only be emptied by replacing them."""
    return st.session_state.get("generation", 0)


@contextmanager
def error_panel() -> Iterator[None]:
    """Shows every error that a user can cause as a sentence; all others are defects and pass."""
    try:
        yield
    except AMAError as error:
        st.error(said(error), icon=":material/error:")


def chart(
    figure: go.Figure,
    data: Mapping[str, Sequence],
    name: str,
    alt: str,
    *,
    select: Sequence[str] = (),
    on_select: str | Callable[[list], None] = "rerun",
    downloads: Any = None,
) -> list:
    """A chart, its text alternative, and its downloads: `data` (columns of equal length) as CSV, the figure as HTML.

    Args:
        downloads: the container of the downloads; default: below the chart.
        select: how points may be chosen: `points`, `box`, `lasso`; `on_select`: what is called with the chosen ones.

    Returns:
        The customdata of the points that are chosen now.
    """
    key, more = f"chart-{name}", {"config": charts.CONFIG}
    if select:
        key = f"{key}-{generation()}"  # a reset forgets what was chosen
        react = on_select if on_select == "rerun" else lambda: on_select(_chosen(st.session_state[key]))
        config = charts.CONFIG_SELECT if "lasso" in select else charts.CONFIG
        more = {"config": config, "on_select": react, "selection_mode": select}
    state = st.plotly_chart(figure, width="stretch", theme="streamlit", key=key, alt=alt, **more)
    with (downloads or st).popover("Download this chart", icon=":material/download:"):
        st.download_button("Data (CSV)", safe_csv(data), f"{name}.csv", "text/csv", key=f"csv-{name}", on_click="ignore")
        # A callable: the 4 MB file is made when it is asked for.
        st.download_button(
            "Standalone page (HTML)",
            lambda: charts.standalone(figure),
            f"{name}.html",
            "text/html",
            key=f"html-{name}",
            on_click="ignore",
        )
    return _chosen(state) if select else []


def download_table(label: str, columns: Mapping[str, Sequence] | pd.DataFrame, name: str, **more: Any) -> None:
    """A button for `columns` of equal length as CSV."""
    st.download_button(
        label,
        lambda: safe_csv(columns),
        f"{name}.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
        key=f"table-{name}",
        **more,
    )


def safe_csv(columns: Mapping[str, Sequence] | pd.DataFrame) -> str:
    """Columns as CSV in which nothing is a formula, see `csv_cell`."""
    return _safe(columns).to_csv(index=False)


def grid(columns: Mapping[str, Sequence] | pd.DataFrame, *, style: Callable = lambda frame: frame, **more: Any) -> Any:
    """A table to look into: `st.dataframe`, whose own menu downloads what it shows as CSV, and escapes nothing.

    style: makes of the frame one with colours, a pandas Styler.
    """
    return st.dataframe(style(_safe(columns)), hide_index=True, **more)


def _safe(columns: Mapping[str, Sequence] | pd.DataFrame) -> pd.DataFrame:
    # Column by column: `DataFrame.map` would take a column of strings and None for numbers that are missing.
    frame = pd.DataFrame(columns)
    words = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    return frame.assign(**{name: frame[name].map(csv_cell) for name in words}).rename(columns=csv_cell)


def _chosen(state: Mapping) -> list:
    return [point["customdata"] for point in state["selection"]["points"] if "customdata" in point]


def explain(*scores: Score, p: bool = False) -> None:
    """The meaning and the equation of scores, and with `p` of the p-value, folded away."""
    with st.expander("What these numbers mean, with their equations", icon=":material/function:"):
        for score in scores:
            st.markdown(meaning(score))
            st.latex(score.equation)
        if p:
            st.markdown(P_VALUE)
            st.latex(P_EQUATION)


def meaning(score: Score) -> str:
    """What a score is, in one sentence."""
    return f"**{literal(score.name)}**: {score.meaning}"


def listed(words: Sequence[str]) -> str:
    """Words as they are listed in a sentence: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def image_sets(view: View) -> list[str]:
    """The sets whose images need no download, the model's own test images first; says where those are missing."""
    normal, available = view.normal, available_sets()
    others = [name for name in available if name != normal]
    if normal in available or (normal and normal not in catalog()):
        return [cache.NORMAL, *others]
    if normal:
        st.info(
            f"The normal images of this model, {title_of(normal)}, are not on this computer, so other sets are shown. "
            f"`python -m ama_core datasets --download {normal}` fetches them."
        )
    return others


def papers_sets(view: View) -> list[str]:
    """The sets, as they are measured here, that the paper tells the model's normal set from; none for a set of one's own."""
    return papers_sets_of(view.normal)


def papers_sets_of(normal: str | None) -> list[str]:
    """The same by the name of the normal set."""
    return [published.STAND_INS.get(ood, ood) for name, ood in published.TASKS if name == normal]


def title_of(name: str) -> str:
    """What a data set is called, the same on every page (see `ama_core.data.label_of`); other names as they are."""
    return "the other classes of the model's own set" if name == REST else label_of(name)


def titles_of(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Sets -> what they are called where each must be told from the others: of folders with one name all but the first say
    where they lie.

    Args:
        taken: titles that mean something else there.
    """
    found, used = {}, set(taken)
    for name in names:
        title, parent, number = title_of(name), PurePath(name).parent.name, 2
        if title in used and parent:
            title = f"{title} ({parent})"
        wish = title
        while title in used:
            title, number = f"{wish} ({number})", number + 1
        used.add(title)
        found[name] = title
    return found


def class_name(name: str, label: int) -> str:
    """The catalog's name of a class; its number where it has none."""
    return class_of(name, label)


def percent(value: float) -> str:
    """0.05 as "5 %", with no digit that says nothing."""
    if 0.99 < value < 1:  # never "100 %" of what is less
        return f"{min(round(100 * value, 2), 99.99):g} %"
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def literal(text: str) -> str:
    """Text that others named, such as a file name, so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+!|$~<>:])", r"\\\1", text)


def said(error: Exception | str) -> str:
    """The text of an error for Markdown: as it is, and on a public server without the folders of the files that it names."""
    return literal(access.without_paths(str(error)))


def _reset() -> None:
    st.session_state.update(st.session_state.get("defaults", {}))
    st.session_state["generation"] = generation() + 1


def _no_model() -> None:
    st.info(
        "There is no trained model here yet. Train a small one in a few minutes, then reload this page:",
        icon=":material/model_training:",
    )
    st.code(TRAIN_COMMAND, language="bash")
    st.caption(
        f"Models are looked for in the folders of the environment variable {cache.MODELS_VARIABLE}, otherwise in "
        "`pretrained/` and `runs/`."
    )
    st.stop()
