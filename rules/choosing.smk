# Choose the best of runs that differ in hyperparameters alone, on validation or on test images.
rule choosing:
    input:
        WIRING.cards("choosing"),
    output:
        card=STORE / "choosing" / "{entry}" / "card.json",
        timing=STORE / "choosing" / "{entry}" / "timing.json",
        metrics=STORE / "choosing" / "{entry}" / "metrics.json",
        predictions=STORE / "choosing" / "{entry}" / "predictions.parquet",
    log:
        STORE / "choosing" / "{entry}" / "choosing.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        entry=subpath(output.card, parent=True),
        code=WIRING.code("choosing"),
    shell:
        "python -m robust_transfer choosing {params.entry} --threads {threads} --device cpu --log {log}"
