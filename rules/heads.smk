# Train linear heads on a frozen network by the paper's protocol, every learning rate at once.
rule heads:
    input:
        ancient(WIRING.cards("heads")),
    output:
        card=STORE / "heads" / "{entry}" / "card.json",
        timing=STORE / "heads" / "{entry}" / "timing.json",
        metrics=STORE / "heads" / "{entry}" / "metrics.json",
        predictions=STORE / "heads" / "{entry}" / "predictions.parquet",
        epochs=STORE / "heads" / "{entry}" / "epochs.csv",
    log:
        STORE / "heads" / "{entry}" / "heads.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=1440,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
        code=WIRING.code("heads"),
    shell:
        "python -m robust_transfer heads {params.entry} --threads {threads} --log {log}"
