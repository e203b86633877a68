"""Images in, HTML out: pictures, tables of pictures, colour keys, and drawings made of boxes.

Text colours are left to Streamlit's theme, so that all of it serves light and dark.
"""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from palette import BLUE, CUT, GREEN, GRID, VERMILLION, rgb

from ama_core.data.pictures import jpeg, png, thumbnail

METHOD = (
    "The encoder E turns the image x into a code z, the generator G turns z into the reconstruction x̂. The critic D sees two "
    "pairs, the image with itself and the image with its reconstruction, and gives features f of each. Their distance is the "
    "score R; how usual that R is among the training images is the score A."
)
DIFFERENCE_RANGE = 0.5  # a difference of this fraction of the full scale, or more, gets the full colour
FADE, FADED_TO = 0.45, 200.0  # how much of its contrast an image keeps under a map, and the grey that it fades to
LARGEST = 1600  # pixels of the longer side of a photograph on a page
CRITIC_RANGE = 8  # a place that adds this many times what one adds in the mean training image gets the full colour


def picture(image: np.ndarray, alt: str) -> str:
    """uint8 (H, W, C) as an <img>; small ones are enlarged pixel by pixel, never blurred."""
    source = data_uri(image)
    style = "image-rendering:pixelated" if max(image.shape[:2]) <= 128 else ""
    return f'<img src="{source}" alt="{html.escape(alt, quote=True)}" style="{style}">'


def data_uri(image: np.ndarray, times: int = 1) -> str:
    """uint8 (H, W, C) as a PNG in a data URI, every pixel a square of `times` by `times`."""
    large = image.repeat(times, axis=0).repeat(times, axis=1)
    return f"data:image/png;base64,{base64.b64encode(png(large)).decode()}"


def photograph(image: np.ndarray, alt: str) -> str:
    """uint8 (H, W, 3), reduced where it is larger than any page, as wide as the page allows; as HTML."""
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg(thumbnail(image, LARGEST), 90)).decode()}"
    style = ".ama-photograph img{max-width:100%;max-height:80vh;border-radius:4px;display:block}"
    shown = f'<img src="{source}" alt="{html.escape(alt, quote=True)}">'
    return f"<style>{style}</style><div class='ama-photograph'>{shown}</div>"


def strip(image: np.ndarray, alt: str) -> str:
    """A wide picture, uint8 (H, W, C), as broad as the page allows, its pixels kept; as HTML."""
    style = ".ama-strip img{width:100%;max-width:1024px;border-radius:4px;image-rendering:pixelated}"
    return f"<style>{style}</style><div class='ama-strip'>{picture(image, alt)}</div>"


def figures(parts: Sequence[tuple[str, np.ndarray, str]], width: int = 160) -> str:
    """(caption, uint8 image, text alternative) side by side, `width` pixels each, wrapping on narrow screens; as HTML."""
    style = (
        ".ama-figures{display:flex;flex-wrap:wrap;gap:.9rem}.ama-figures figure{margin:0;width:min(var(--w),42vw)}"
        f".ama-figures img{{width:100%;aspect-ratio:1;object-fit:contain;border-radius:4px;border:1px solid {GRID}}}"
        ".ama-figures figcaption{font-size:.82rem}"
    )
    body = "".join(
        f"<figure>{picture(image, alt)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, image, alt in parts
    )
    return f"<style>{style}</style><div class='ama-figures' style='--w:{width}px'>{body}</div>"


def thumbnails(images: Sequence[np.ndarray], alt: str, width: int = 56) -> str:
    """Small pictures of the same text alternative in a row that wraps; as HTML."""
    style = f".ama-row{{display:flex;flex-wrap:wrap;gap:.5rem}}.ama-row img{{width:{width}px;border-radius:4px}}"
    return f"<style>{style}</style><div class='ama-row'>{''.join(picture(image, alt) for image in images)}</div>"


def image_table(heads: Sequence[str], rows: Sequence[tuple[Sequence[tuple[np.ndarray, str]], str]]) -> str:
    """Rows of (pictures with their text alternatives, words) under headings, the last of them over the words; as HTML.

    Where it is wider than the page it scrolls inside itself, and the first column stays in sight.
    """
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{picture(*cell)}</td>" for cell in cells) + f"<td class='words'>{words}</td></tr>"
        for cells, words in rows
    )
    few, some = "clamp(46px,20cqw,112px)", "clamp(46px,12vw,112px)"
    size = few if len(heads) <= 4 else some if len(heads) <= 6 else "clamp(52px,6.2vw,96px)"
    style = (
        ".ama-scroll{overflow-x:auto;container-type:inline-size}.ama-table{border-collapse:collapse}"
        ".ama-table th{font-size:clamp(.62rem,1.9vw,.9rem);text-align:left;vertical-align:bottom;font-weight:600;"
        "padding:2px clamp(2px,.6vw,8px)}"
        ".ama-table td{padding:3px clamp(2px,.6vw,8px);vertical-align:middle}"
        ".ama-table img{width:var(--size);min-width:var(--size);display:block;border-radius:3px}"
        ".ama-table td:first-child{position:sticky;left:0}"
        f".ama-table tr{{border-bottom:1px solid {GRID}}}"
        ".ama-table .words{font-size:clamp(.7rem,2vw,.95rem);line-height:1.45;min-width:5.5rem}"
    )
    return (
        f"<style>{style}</style><div class='ama-scroll' role='region' aria-label='Table of images' tabindex='0'>"
        f"<table class='ama-table' style='--size:{size}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def method() -> str:
    """The method as a drawing, x -> E -> z -> G -> x̂ and pairs -> D -> f -> R -> A, for light and dark; as HTML."""
    drawing = (Path(__file__).parent / "method.svg").read_bytes()
    source = f"data:image/svg+xml;base64,{base64.b64encode(drawing).decode()}"  # as it is, Streamlit would take it out
    style = ".ama-method img{width:100%;max-width:560px;display:block}"
    return f'<style>{style}</style><div class="ama-method"><img src="{source}" alt="{html.escape(METHOD, quote=True)}"></div>'


def difference_map(image: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """Reconstruction minus image, mean over colours, as uint8 (H, W, 3): vermillion brighter, blue darker, white the same."""
    change = (reconstruction.astype(np.float32) - image.astype(np.float32)).mean(axis=2) / 255
    return diverging(change / DIFFERENCE_RANGE)


def difference_key() -> str:
    """The colour key of difference maps, as HTML."""
    bar = diverging(np.linspace(-1, 1, 41))[None].repeat(4, axis=0)
    end = f"{DIFFERENCE_RANGE:.0%}".replace("%", " %")
    return _key(bar, "blue over white to vermillion", f"Difference: {end} darker", f"{end} brighter than the image")


def critic_map(image: np.ndarray, shares: np.ndarray, mean_r: float) -> np.ndarray:
    """What each place adds to R, laid over the faded image in grey, as uint8 (S, S, 3): vermillion adds, blue takes away.

    Args:
        image: uint8 (S, S, C). shares: (g, g), g divides S; they sum to the image's R.
        mean_r: mean R of the training images, so that colours compare between images.
    """
    times = image.shape[0] // shares.shape[0]
    amount = shares * shares.size / (CRITIC_RANGE * mean_r)
    amount = np.sign(amount) * np.sqrt(np.minimum(np.abs(amount), 1))  # usual and unusual shares differ by orders of magnitude
    return _over(image, amount.repeat(times, axis=0).repeat(times, axis=1))


def heat_map(image: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Amounts in [0, 1], (S, S), in vermillion over the faded image in grey, uint8 (S, S, C), as uint8 (S, S, 3)."""
    return _over(image, amount)


def _over(image: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Amounts in [-1, 1], (S, S), over the faded image in grey, as uint8 (S, S, 3)."""
    amount = amount[..., None]
    grey = FADED_TO + FADE * (image.astype(np.float32).mean(axis=2, keepdims=True) - FADED_TO)
    return np.rint(grey + 0.9 * np.abs(amount) * (np.where(amount < 0, rgb(BLUE), rgb(VERMILLION)) - grey)).astype(np.uint8)


def critic_key(who: str = "Critic", score: str = "R") -> str:
    """The colour key of maps of what each place adds to a score, as HTML."""
    bar = critic_map(np.full((41, 41, 1), 128, np.uint8), np.linspace(-1, 1, 41)[None].repeat(41, 0), 41 * 41 / CRITIC_RANGE)
    high = (
        f"adds to {html.escape(score)} (full colour: {CRITIC_RANGE} times the mean over training images or more; square-root "
        "scale)"
    )
    return _key(bar[:4], "blue over grey to vermillion", f"{who}: takes from {html.escape(score)}", high)


def _key(bar: np.ndarray, colours: str, low: str, high: str) -> str:
    style = (
        f".ama-key img{{width:9rem;height:.7rem;vertical-align:middle;margin:0 .4rem;border:1px solid {CUT}}}"
        ".ama-key{font-size:.85rem}"
    )
    return f"<style>{style}</style><div class='ama-key'>{low} {picture(bar, f'Colour key from {colours}')} {high}</div>"


def diverging(values: np.ndarray) -> np.ndarray:
    """Values in [-1, 1], any shape, as uint8 (..., 3) from blue over white to vermillion; beyond is clipped."""
    amount = np.abs(np.clip(values, -1, 1))[..., None]
    colour = np.where(np.asarray(values)[..., None] < 0, rgb(BLUE), rgb(VERMILLION))
    return np.rint(255 + amount * (colour - 255)).astype(np.uint8)


def confusion_table(hits: int, misses: int, false_alarms: int, passed: int, anomalous: str, normal: str = "normal") -> str:
    """The four counts of a verdict, shaded by their share of the row, as an HTML table with words for right and wrong."""

    def cell(count: int, total: int, word: str, right: bool) -> str:
        share = count / total if total else 0.0
        colour = ",".join(f"{c:.0f}" for c in rgb(BLUE if right else VERMILLION))
        mark = "✓" if right else "✗"
        return (
            f'<td style="background:rgba({colour},{0.06 + 0.4 * share:.2f})"><b>{count:,}</b> ({100 * share:.1f}&nbsp;%)'
            f"<br><small>{mark} {word}</small></td>"
        )

    style = (
        ".ama-confusion{border-collapse:separate;border-spacing:4px;width:100%;max-width:34rem}"
        ".ama-confusion th{font-size:.85rem;font-weight:600;text-align:left;padding:2px 6px}"
        ".ama-confusion td{padding:8px 10px;border-radius:6px;width:38%}"
    )
    return (
        f"<style>{style}</style><table class='ama-confusion'><caption style='display:none'>Confusion matrix</caption>"
        "<thead><tr><th></th><th scope='col'>flagged</th><th scope='col'>passed</th></tr></thead><tbody>"
        f"<tr><th scope='row'>{html.escape(anomalous)}</th>{cell(hits, hits + misses, 'detected', True)}"
        f"{cell(misses, hits + misses, 'missed', False)}</tr><tr><th scope='row'>{html.escape(normal)}</th>"
        f"{cell(false_alarms, false_alarms + passed, 'false alarm', False)}"
        f"{cell(passed, false_alarms + passed, 'rightly passed', True)}</tr></tbody></table>"
    )


def architecture(networks: Sequence[tuple[str, Sequence[tuple[str, tuple[int, ...], int]]]]) -> str:
    """Networks, (title, stages as (name, output shape, parameters)), as rows of boxes that wrap, as HTML.

    A box's bar is as wide as the layer has channels and as high as its grid, both on a logarithmic scale.
    """
    rows = []
    for (title, stages), (colour, dash) in zip(networks, ((BLUE, "solid"), (GREEN, "dashed"), (VERMILLION, "dotted"))):
        boxes = []
        for name, shape, parameters in stages:
            channels, side = shape[0], shape[1] if len(shape) == 3 else 1
            words = "×".join(map(str, (*shape[1:], channels))) if len(shape) == 3 else f"vector of {channels}"
            width, height = 6 + 9 * np.log2(channels + 1), 6 + 9 * np.log2(side)
            boxes.append(
                f"<li><div class='shape' style='width:{width:.0f}px;height:{height:.0f}px;background:{colour}'></div>"
                f"<b>{words}</b><span>{html.escape(name)}</span>"
                + (f"<small>{parameters:,} parameters</small>" if parameters else "")
                + "</li>"
            )
        rows.append(f"<h4>{html.escape(title)}</h4><ol style='--edge:2px {dash} {colour}'>{''.join(boxes)}</ol>")
    style = (
        ".ama-net ol{display:flex;flex-wrap:wrap;gap:.5rem 1.4rem;list-style:none;margin:0 0 1rem;padding:0 0 0 1.2rem}"
        ".ama-net li{position:relative;display:flex;flex-direction:column;justify-content:flex-end;width:8.2rem;margin:0;"
        "padding:.5rem .6rem;border:var(--edge);border-radius:8px;font-size:.8rem;line-height:1.3}"
        ".ama-net li+li::before{content:'→';position:absolute;left:-1.25rem;top:45%}"
        ".ama-net .shape{border-radius:3px;opacity:.75;margin-bottom:.35rem}"
        ".ama-net small{opacity:.75}.ama-net h4{font-size:1rem;margin:.4rem 0}"
    )
    return f"<style>{style}</style><div class='ama-net'>{''.join(rows)}</div>"
