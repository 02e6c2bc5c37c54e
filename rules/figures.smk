# Draw one figure or table from the results table, with the numbers beside it.
rule figures:
    input:
        RESULTS / "results.parquet",
    output:
        png=report(
            RESULTS / "figures" / "{figure}.png",
            caption="../workflow/report/{figure}.rst",
            category="Figures and tables",
            labels={"figure": "{figure}"},
        ),
        pdf=RESULTS / "figures" / "{figure}.pdf",
        svg=RESULTS / "figures" / "{figure}.svg",
        csv=RESULTS / "figures" / "{figure}.csv",
    log:
        RESULTS / "logs" / "{figure}.log",
    conda:
        "../envs/robust-transfer.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        stem=subpath(output.png, strip_suffix=".png"),
        code=WIRING.figure_code,
    shell:
        """
        python -m robust_transfer figures {wildcards.figure} {input} \
            --out {params.stem} \
            --log {log}
        """
