"""Tables as DataFrames, and what LaTeX, HTML and Markdown make of their marks, labels and headings."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from robust_transfer.figures import html, latex, markdown
from robust_transfer.figures.tables import Cell, Table, TableRow, Tables

HOSTILE = "Cost $5 & up_{}|<b>"
EVERY_SPECIAL = r"100 % of A_B & C#1 {~^\} <i> |x| ε 4/255 in L∞, −1 ± 2² × 3 – 4 … *a* `b` [c]"
MARKS = {
    "plain": Cell("78.2"),
    "interval": Cell("78.2", "[75.6, 80.9]"),
    "bold": Cell("99.3", "[98.8, 99.8]", bold=True),
    "faint": Cell("not measured", faint=True),
    "star": Cell("−36.1", "[−39.4, −32.9]", starred=True),
    "empty": Cell(),
}
VOID = {"meta", "br"}


class Page(HTMLParser):
    """The elements of a page; fails where a tag is closed that was not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def headed(label: str = "Target") -> Table:
    """Two blocks of targets with every mark."""
    rows = [TableRow((mode, f"{label} {i}"), list(MARKS.values())) for mode in ("A (x: y)", "B") for i in (1, 2)]
    return Table.of(rows, ["mode", "R²"], list(MARKS), "Every mark", headed=True)


def grouped() -> Table:
    """Three levels of labels, the first two shared by rows."""
    rows = [
        TableRow((target, network, chosen), [Cell("1"), Cell("2")])
        for target in ("T1", "T2")
        for network in ("standard", "robust")
        for chosen in ("validation", "test")
    ]
    return Table.of(rows, ["Mode", "", "chosen on"], ["frozen", "paper,\nas released"], "Levels")


def spanned() -> Table:
    """Columns of two levels."""
    columns = [(network, name) for network in ("ResNet-18", "VGG") for name in ("ours", "Δ")]
    return Table.of([TableRow(("0",), [Cell("1")] * 4), TableRow(("3",), [Cell("2")] * 4)], ["ε"], columns, "Spans")


def everything() -> Tables:
    return Tables([headed(), grouped(), spanned(), headed(HOSTILE)], [HOSTILE, EVERY_SPECIAL], [])


def test_a_table_is_a_frame_of_cells() -> None:
    frame = headed().frame
    assert frame.index.names == ["mode", "R²"]
    assert frame.loc[("B", "Target 2"), "bold"] == MARKS["bold"]
    assert str(frame.loc[("B", "Target 2"), "star"]) == "−36.1 [−39.4, −32.9]*"
    assert spanned().frame["VGG"].shape == (2, 2)


@pytest.mark.parametrize(
    ("mark", "in_latex", "in_html", "in_markdown"),
    [
        ("plain", "78.2", "<td>78.2</td>", "78.2"),
        (
            "interval",
            r"78.2 {\scriptsize [75.6, 80.9]}",
            '<td>78.2 <span class="detail">[75.6, 80.9]</span></td>',
            "78.2 [75.6, 80.9]",
        ),
        (
            "bold",
            r"\textbf{99.3} {\scriptsize [98.8, 99.8]}",
            '<td><b>99.3</b> <span class="detail">[98.8, 99.8]</span></td>',
            "**99.3 [98.8, 99.8]**",
        ),
        ("faint", r"\textit{not measured}", '<td class="faint">not measured</td>', "not measured"),
        (
            "star",
            r"$-$36.1 {\scriptsize [$-$39.4, $-$32.9]}\rlap{*}",
            '<td>−36.1 <span class="detail">[−39.4, −32.9]</span><span class="star">*</span></td>',
            r"−36.1 [−39.4, −32.9]\*",
        ),
        ("empty", "", "<td></td>", ""),
    ],
)
def test_every_mark_in_every_format(mark: str, in_latex: str, in_html: str, in_markdown: str) -> None:
    cell = MARKS[mark]
    assert (latex.cell(cell), html.cell(cell), markdown.cell(cell)) == (in_latex, in_html, in_markdown)


def test_hostile_labels_are_escaped() -> None:
    assert latex.text(HOSTILE) == r"Cost \$5 \& up\_\{\}\textbar{}\textless{}b\textgreater{}"
    assert markdown.text(HOSTILE) == r"Cost \$5 & up\_{}\|\<b>"
    assert latex.text("ε ≤ L∞, −1 %") == r"$\varepsilon$ ≤ L$\infty$, $-$1 \%"
    assert (
        markdown.text("protocol_gap.csv; * its interval, *b*, a\nb") == r"protocol_gap.csv; * its interval, \*b\*, a b"
    )
    page = Page(Tables([headed(HOSTILE)], [HOSTILE], []).html())
    assert [tag for tag, text in page.texts if text == f"{HOSTILE} 1"] == ["th", "th"]
    assert ("p", HOSTILE) in page.texts
    assert len(page.of("b")) == 4  # those of the marks alone


@pytest.mark.parametrize(
    ("label", "in_latex", "in_markdown"),
    [
        ("a--b---c", "a-{}-b-{}--c", "a--b---c"),
        ("``x''", r"\textasciigrave{}\textasciigrave{}x'{}'", r"\`\`x''"),
        ("[a](http://b)", "[a](http://b)", r"\[a](http://b)"),
        ("![a][b]", "![a][b]", r"!\[a][b]"),
        ("x^2^ ~~y~~", r"x\textasciicircum{}2\textasciicircum{} \textasciitilde{}\textasciitilde{}y"
         r"\textasciitilde{}\textasciitilde{}", r"x\^2\^ \~\~y\~\~"),
        ("a &amp; b", r"a \&amp; b", r"a \&amp; b"),
        ("a | b \\| c", r"a \textbar{} b \textbackslash{}\textbar{} c", r"a \| b \\\| c"),
        ("100 % #1", r"100 \% \#1", "100 % #1"),
        ("−1 [−2, 3]", "$-$1 [$-$2, 3]", "−1 [−2, 3]"),
    ],
)  # fmt: skip
def test_what_formats_interpret_is_written_literally(label: str, in_latex: str, in_markdown: str) -> None:
    assert latex.text(label) == in_latex
    assert markdown.text(label) == in_markdown
    page = Page(Tables([headed(label)], [label], []).html())
    assert [tag for tag, text in page.texts if text == f"{label} 1"] == ["th", "th"]
    for line in Tables([headed(label)], [], []).markdown().splitlines():
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) in (0, 2 + len(MARKS)), line


def test_latex_with_letters_that_pdflatex_lacks_says_what_to_compile_it_by() -> None:
    assert "lualatex or xelatex" in Tables([headed("汉字")], [], []).latex()
    assert "lualatex" not in everything().latex()
    assert "lualatex" not in Tables([headed("Größe café")], [], []).latex()


def test_no_line_of_latex_begins_as_an_argument_of_the_line_above() -> None:
    rows = [TableRow((label,), [Cell("1")]) for label in ("[a]", "*b", "c")]
    text = Tables([Table.of(rows, [""], ["x"], "")], [], []).latex()
    assert "\n{}[a] & 1" in text
    assert "\n{}*b & 1" in text
    assert "\nc & 1" in text


def test_markdown_has_one_cell_for_every_column() -> None:
    lines = [line for line in everything().markdown().splitlines() if line.startswith("|")]
    widths = [len(line.replace(r"\|", "").split("|")) - 2 for line in lines]
    assert widths == [7] * 8 + [5] * 10 + [5] * 4 + [7] * 8
    assert lines[0] == "| R² | plain | interval | bold | faint | star | empty |"
    assert lines[2] == "| **A (x: y)** |  |  |  |  |  |  |"
    assert lines[8] == "| Mode |  | chosen on | frozen | paper, as released |"
    assert lines[10:13] == [
        "| T1 | standard | validation | 1 | 2 |",
        "|  |  | test | 1 | 2 |",
        "|  | robust | validation | 1 | 2 |",
    ]
    assert lines[18] == "| ε | ResNet-18 ours | Δ | VGG ours | Δ |"


def test_latex_has_rules_headings_and_notes() -> None:
    text = everything().latex()
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 4
    assert "\\multicolumn{7}{l}{\\textit{A (x: y)}} \\\\\n\\addlinespace[2pt]\nTarget 1 & 78.2" in text
    assert (
        " & \\multicolumn{2}{c}{ResNet-18} & \\multicolumn{2}{c}{VGG} \\\\\n\\cmidrule(lr){2-3}\\cmidrule(lr){4-5}"
        in text
    )
    assert r"\begin{tabular}[b]{@{}r@{}}paper, \\ as released\end{tabular}" in text
    assert "\n & robust & validation & 1 & 2 \\\\" in text
    assert r"\begin{minipage}{\linewidth}\footnotesize" in text


def test_html_is_balanced_and_every_header_says_what_it_is_for() -> None:
    text = everything().html()
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!DOCTYPE html>")
    assert {"charset": "utf-8"} in page.of("meta")
    assert [tag for tag, _ in page.elements].count("caption") == len(page.of("table")) == 4
    headers = page.of("th")
    assert {header["scope"] for header in headers} == {"col", "colgroup", "row", "rowgroup"}
    assert [header["rowspan"] for header in headers if header["scope"] == "row" and "rowspan" in header] == [
        "4",
        "2",
        "2",
    ] * 2
    assert [header["colspan"] for header in headers if header["scope"] == "colgroup"] == ["2", "2"]
    assert [header["colspan"] for header in headers if header["scope"] == "rowgroup"] == ["7"] * 4
    assert "http" not in text  # nothing is loaded from elsewhere


def test_every_row_of_html_fills_the_table() -> None:
    for table in everything().tables:
        page = Page(Tables([table], [], []).html())
        cells, groups, below = [0], 0, dict[int, int]()
        for tag, attributes in page.elements:
            if tag == "tr":
                cells.append(below.pop(len(cells), 0))
            elif tag in ("td", "th"):
                cells[-1] += (columns := int(attributes.get("colspan") or 1))
                for more in range(1, int(attributes.get("rowspan") or 1)):
                    below[len(cells) - 1 + more] = below.get(len(cells) - 1 + more, 0) + columns
            elif tag == "colgroup":
                groups += int(attributes["span"] or 0)
        assert cells[1:] == [groups] * (len(cells) - 1) == [len(table.names) + len(table.columns)] * (len(cells) - 1)


def test_without_tables_the_notes_stand_alone() -> None:
    nothing = Tables([], ["Transfer: not measured"], [])
    assert nothing.markdown() == "Transfer: not measured\n"
    assert "Transfer: not measured" in nothing.latex()
    assert "tabular}" not in nothing.latex()
    assert ("p", "Transfer: not measured") in Page(nothing.html()).texts


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    for again in ("first", "second"):
        everything().write(tmp_path / again)
    for suffix in ("tex", "html", "md"):
        first = (tmp_path / f"first.{suffix}").read_bytes()
        assert first == (tmp_path / f"second.{suffix}").read_bytes()
        assert first.endswith(b"\n")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("packages", ["booktabs", "booktabs,graphicx"])
def test_latex_compiles(packages: str, tmp_path: Path) -> None:
    every = everything()
    Tables([*every.tables, headed("``a'' --b [c] ~^")], every.notes, []).write(tmp_path / "every")
    (tmp_path / "paper.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{{packages}}}\begin{{document}}"
        r"\begin{table}\centering\input{every.tex}\caption{Every mark}\end{table}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, errors="replace")
    if "`booktabs.sty' not found" in run.stdout:
        pytest.skip("booktabs is not installed")
    assert run.returncode == 0, run.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 0
