"""The router: pages and their URLs, nothing else. Start with `streamlit run app/main.py`."""

from pathlib import Path
from urllib.parse import parse_qs

import access
import controls
import streamlit as st

# Not called "pages": Streamlit would take a folder of that name beside this file for its own older kind of app, and the
# first visitor of a fresh server who follows a link to a page would get that page without this router.
VIEWS = Path(__file__).parent / "views"

FRONT = st.Page(VIEWS / "lesson.py", title="Why raw scores fail", icon=":material/school:")


def front() -> None:
    """Leads from / to the front page, whose own URL then stays the same when another page becomes the front."""
    st.switch_page(FRONT, query_params={key: st.query_params.get_all(key) for key in st.query_params})


# Before the pages are known: the browser would fetch a page's own icon from the network.
st.set_page_config(page_icon="🪞", layout="wide")
page = st.navigation(
    [
        st.Page(front, default=True, visibility="hidden"),
        FRONT,
        st.Page(VIEWS / "densities.py", title="Score densities", icon=":material/area_chart:"),
        st.Page(VIEWS / "reconstructions.py", title="Reconstructions", icon=":material/compare:"),
        st.Page(VIEWS / "shell.py", title="Latent shell", icon=":material/blur_circular:"),
        st.Page(VIEWS / "simplex.py", title="Simplex", icon=":material/change_history:"),
        # Known to the router, so that an old link gets a sentence; the page itself stops where this server is public.
        st.Page(
            VIEWS / "train.py",
            title="Train",
            icon=":material/model_training:",
            visibility="hidden" if access.public() else "visible",
        ),
        st.Page(VIEWS / "check.py", title="Check images", icon=":material/image_search:"),
        st.Page(VIEWS / "compare.py", title="Compare", icon=":material/balance:"),
        st.Page(VIEWS / "benchmark.py", title="Benchmark", icon=":material/leaderboard:"),
        st.Page(VIEWS / "about.py", title="About the model", icon=":material/schema:"),
    ]
)
st.set_page_config(page_title=f"{page.title} · AMA Explorer")
if "view" in st.query_params:  # a link from another page, see controls.link
    st.switch_page(page, query_params=parse_qs(st.query_params["view"]))
if carried := controls.on_arrival(page.url_path):
    st.switch_page(page, query_params={key: st.query_params.get_all(key) for key in st.query_params} | carried)
page.run()
