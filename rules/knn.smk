# Classify by the nearest training images in feature space: the knn protocol.
rule knn:
    input:
        features=WIRING.input("knn", "features"),
    output:
        card=STORE / "knn" / "{entry}" / "card.json",
        timing=STORE / "knn" / "{entry}" / "timing.json",
        metrics=STORE / "knn" / "{entry}" / "metrics.json",
        predictions=STORE / "knn" / "{entry}" / "predictions.parquet",
        neighbours=STORE / "knn" / "{entry}" / "neighbours.csv",
    log:
        STORE / "knn" / "{entry}" / "knn.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=240,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer knn {params.entry:q} --threads {threads} --device cpu --log {log:q}"
