# Select the best of runs that differ in hyperparameters alone, on validation or on test images.
rule selecting:
    input:
        runs=WIRING.runs("selecting"),
    output:
        card=STORE / "selecting" / "{entry}" / "card.json",
        timing=STORE / "selecting" / "{entry}" / "timing.json",
        metrics=STORE / "selecting" / "{entry}" / "metrics.json",
        predictions=STORE / "selecting" / "{entry}" / "predictions.parquet",
        runs=STORE / "selecting" / "{entry}" / "runs.csv",
    log:
        STORE / "selecting" / "{entry}" / "selecting.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer selecting {params.entry:q} --threads {threads} --device cpu --log {log:q}"
