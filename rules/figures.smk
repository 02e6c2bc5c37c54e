# Draw figures and tables, the numbers in them beside: a rule, and so a target, for each.
for figure in DRAW:
    shown, *others = (RESULTS / "figures" / f"{figure}.{suffix}" for suffix in FIGURES[figure].suffixes)

    rule:
        name:
            f"figure_{figure}"
        input:
            table=WIRING.table(f"{FIGURES[figure].table}.parquet"),
        output:
            *others,
            shown=report(
                shown,
                caption=f"../workflow/report/{figure}.rst",
                category="Figures and tables",
                labels={"figure": figure},
            ),
        log:
            RESULTS / "logs" / f"{figure}.log",
        conda:
            "../envs/robust-transfer.yaml"
        resources:
            mem_mb=memory(2000),
            runtime=60,
        params:
            figure=figure,
            stem=subpath(output.shown, strip_suffix=shown.suffix),
        shell:
            "python -m robust_transfer figures {params.figure:q} {input.table:q} --out {params.stem:q} --log {log:q}"
