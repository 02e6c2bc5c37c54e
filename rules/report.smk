# Sum the experiment up in plain text: what the terminal shows at the end.
rule report:
    input:
        results=RESULTS / "results.parquet",
        flags=RESULTS / "flags.csv",
    output:
        RESULTS / "summary.txt",
    log:
        RESULTS / "logs" / "report.log",
    conda:
        "../envs/robust-transfer.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        code=WIRING.code("report"),
    shell:
        "python -m robust_transfer report {input.results} --flags {input.flags} --out {output} --log {log}"
