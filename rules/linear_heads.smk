# Train linear heads on a frozen network by the paper's protocol, every learning rate at once.
rule linear_heads:
    input:
        backbone=WIRING.input("linear_heads", "backbone"),
        dataset=WIRING.input("linear_heads", "dataset"),
    output:
        card=STORE / "linear_heads" / "{entry}" / "card.json",
        timing=STORE / "linear_heads" / "{entry}" / "timing.json",
        metrics=STORE / "linear_heads" / "{entry}" / "metrics.json",
        predictions=STORE / "linear_heads" / "{entry}" / "predictions.parquet",
        epochs=STORE / "linear_heads" / "{entry}" / "epochs.csv",
    log:
        STORE / "linear_heads" / "{entry}" / "linear_heads.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("linear_heads")
    resources:
        mem_mb=FEEDING.memory("linear_heads", 4000),
        runtime=1440,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer linear_heads {params.entry:q} --threads {threads} --log {log:q}"
