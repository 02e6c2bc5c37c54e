# Fit the frozen protocol's linear probe on features, for all strengths at once.
rule probing:
    input:
        features=WIRING.input("probing", "features"),
    output:
        card=STORE / "probing" / "{entry}" / "card.json",
        timing=STORE / "probing" / "{entry}" / "timing.json",
        metrics=STORE / "probing" / "{entry}" / "metrics.json",
        predictions=STORE / "probing" / "{entry}" / "predictions.parquet",
        strengths=STORE / "probing" / "{entry}" / "strengths.csv",
    log:
        STORE / "probing" / "{entry}" / "probing.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=240,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer probing {params.entry:q} --threads {threads} --device cpu --log {log:q}"
