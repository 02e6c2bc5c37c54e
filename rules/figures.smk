# Draw figures and tables, the numbers drawn beside them: a rule, and so a target, for each.
from robust_transfer.registry import FIGURES

for figure in DRAW:
    as_text = {"md": RESULTS / "figures" / f"{figure}.md"} if FIGURES[figure].is_table else {}

    rule:
        name:
            f"figure_{figure}"
        input:
            table=RESULTS / f"{FIGURES[figure].table}.parquet",
        output:
            **as_text,
            png=report(
                RESULTS / "figures" / f"{figure}.png",
                caption=f"../workflow/report/{figure}.rst",
                category="Figures and tables",
                labels={"figure": figure},
            ),
            pdf=RESULTS / "figures" / f"{figure}.pdf",
            svg=RESULTS / "figures" / f"{figure}.svg",
            csv=RESULTS / "figures" / f"{figure}.csv",
        log:
            RESULTS / "logs" / f"{figure}.log",
        conda:
            "../envs/robust-transfer.yaml"
        resources:
            mem_mb=memory(2000),
            runtime=60,
        params:
            figure=figure,
            stem=subpath(output.png, strip_suffix=".png"),
            code=WIRING.code(f"figures/{figure}"),
        shell:
            "python -m robust_transfer figures {params.figure} {input.table} --out {params.stem} --log {log}"
