# Sum the experiment up in plain text: what the terminal shows at the end.
rule report:
    input:
        results=WIRING.table("results.parquet"),
        flags=WIRING.table("flags.csv"),
    output:
        RESULTS / "summary.txt",
    log:
        RESULTS / "logs" / "report.log",
    conda:
        "../envs/robust-transfer.yaml"
    resources:
        mem_mb=memory(1000),
        runtime=30,
    shell:
        "python -m robust_transfer report {input.results:q} --flags {input.flags:q} --out {output:q} --log {log:q}"
