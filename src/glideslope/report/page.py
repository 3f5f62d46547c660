"""Page: one self-contained HTML file of text, tables, figures and provenance."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
import plotly.offline

from glideslope.report.tables import Table


@dataclass(frozen=True)
class Provenance:
    """Where numbers come from: versions, hardware, n, as name → text."""

    facts: Mapping[str, str]


@dataclass(frozen=True)
class Command:
    """A command line that repeats something."""

    text: str


@dataclass(frozen=True)
class Figure:
    """A plotly figure with a caption, plain text.

    Args:
        draw: makes the figure. Called when a page is written, for that takes seconds that the terminal has no use for.
        caption: plain text.
    """

    draw: Callable[[], go.Figure]
    caption: str = ""


Block = str | Table | Figure | Provenance | Command
"""What a section is made of; a string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Build the page. Equal input gives an equal page.

    plotly.js is inlined once, and only if there is a figure; the page asks the network for nothing, and its content
    security policy forbids it to. Every text is escaped.

    >>> page = render("Rates & rex", "", [Section("<b>", ["a < b"])])
    >>> "<h2>&lt;b&gt;</h2>" in page, "<p>a &lt; b</p>" in page, "Plotly" in page
    (True, True, False)
    """
    figures: list[str] = []
    body: list[str] = []
    for section in sections:
        blocks = "\n".join(_block(block, figures) for block in section.blocks)
        body.append(f"<section>\n<h2>{html.escape(section.title)}</h2>\n{blocks}\n</section>")
    scripts = (
        "\n".join([f"<script>{plotly.offline.get_plotlyjs()}</script>", *figures, f"<script>{_SCRIPT}</script>"])
        if figures
        else ""
    )
    intro = f'<p class="lead">{html.escape(lead)}</p>' if lead else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{html.escape(title)}</h1>
{intro}
</header>
{chr(10).join(body)}
</main>
{scripts}
</body>
</html>
"""


def write(path: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write the page, whole or not at all: a full disk leaves the file that was there."""
    text = render(title, lead, sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _block(block: Block, figures: list[str]) -> str:
    """HTML of one block; a figure's data goes into `figures`, to stand after plotly.js."""
    if isinstance(block, Table):
        return block.to_html()
    if isinstance(block, Provenance):
        facts = "".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>" for name, value in block.facts.items()
        )
        return f'<dl class="provenance">{facts}</dl>'
    if isinstance(block, Command):
        return f'<pre class="scroll" tabindex="0"><code>{html.escape(block.text)}</code></pre>'
    if isinstance(block, Figure):
        name = f"figure-{len(figures) + 1}"
        figures.append(f'<script type="application/json" data-figure="{name}">{_figure_json(block.draw())}</script>')
        caption = f"<figcaption>{html.escape(block.caption)}</figcaption>" if block.caption else ""
        return f'<figure>{caption}<div class="plot" id="{name}"></div></figure>'
    return f"<p>{html.escape(block)}</p>"


def _figure_json(figure: go.Figure) -> str:
    # A label with `</script>` in it would end the element: the parser looks for it before any JSON is read. The plotly
    # versions we tried escape it too, but do not promise to.
    text: str = plotly.io.to_json(figure, validate=True, engine="json")
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)

_SCRIPT = """
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 40rem)");
  function theme() {
    const style = getComputedStyle(document.body);
    return {
      "font.color": style.color,
      "hoverlabel.bgcolor": style.getPropertyValue("--surface").trim(),
      "hoverlabel.font.color": style.color,
      "margin.l": narrow.matches ? 44 : 64,
    };
  }
  const plots = [];
  for (const source of document.querySelectorAll("script[data-figure]")) {
    const figure = JSON.parse(source.textContent);
    const target = document.getElementById(source.dataset.figure);
    target.style.height = figure.layout.height + "px";
    Plotly.newPlot(target, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false })
      .then(function () { return Plotly.relayout(target, theme()); });
    plots.push(target);
  }
  function repaint() { for (const plot of plots) Plotly.relayout(plot, theme()); }
  dark.addEventListener("change", repaint);
  narrow.addEventListener("change", repaint);
})();
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #59636e; --paper: #ffffff; --surface: #f5f7f9;
  --line: #d8dee4; --accent: #0b6b50; --tied: rgba(0, 158, 115, 0.14); }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9aa5b1; --paper: #14181c; --surface: #1d2329; --line: #343c45; --accent: #4cc9a0;
    --tied: rgba(76, 201, 160, 0.2); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header { border-bottom: 3px solid var(--accent); margin-bottom: 2rem; padding-bottom: 0.75rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 0.5rem; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 0.75rem; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: 0.6rem 0; overflow-wrap: anywhere; }
.lead { font-size: 1.08rem; color: var(--soft); }
figure { margin: 1.25rem 0 1.75rem; }
figcaption { font-weight: 600; margin-bottom: 0.4rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.9rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--surface); color: var(--soft); font-weight: 600; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--paper); }
.number { text-align: right; position: relative; padding-right: 1.3rem; }
.marks { position: absolute; padding-left: 0.1rem; }
.tied { background: var(--tied); }
.note { font-size: 0.86rem; color: var(--soft); max-width: 60rem; }
pre { background: var(--surface); padding: 0.8rem 1rem; font-size: 0.9rem; margin: 0.8rem 0; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.provenance { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: 0.3rem 1.25rem;
  margin: 0.8rem 0; }
.provenance dt { color: var(--soft); }
.provenance dd { margin: 0; overflow-wrap: anywhere; }
.plot { width: 100%; }
@media (max-width: 40rem) {
  main { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  .provenance { grid-template-columns: 1fr; gap: 0; }
  .provenance dd { margin-bottom: 0.5rem; }
}
"""
