# A verdict on every claim of `claims/`, in a ledger.
rule claims:
    input:
        WIRING.table("results.parquet"),
    output:
        multiext(str(RESULTS / "claims"), ".csv", ".json", ".tex", ".md"),
        shown=report(
            RESULTS / "claims.html",
            caption="../workflow/report/claims.rst",
            category="Claims",
            labels={"table": "verdicts"},
        ),
    log:
        RESULTS / "logs" / "claims.log",
    conda:
        "../envs/robust-transfer.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        stem=subpath(output.shown, strip_suffix=".html"),
    shell:
        "python -m robust_transfer claims {input:q} --out {params.stem:q} --log {log:q}"
