# Sum the experiment up in plain text: what the terminal shows at the end.
rule report:
    input:
        RESULTS / "results.parquet",
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
        "python -m robust_transfer report {input} --out {output} --log {log}"
