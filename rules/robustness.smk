# Attack transferred models, network and head as one, on test images of their targets.
rule robustness:
    input:
        WIRING.inputs("robustness"),
    output:
        card=STORE / "robustness" / "{entry}" / "card.json",
        timing=STORE / "robustness" / "{entry}" / "timing.json",
        metrics=STORE / "robustness" / "{entry}" / "metrics.json",
        attacked=STORE / "robustness" / "{entry}" / "attacked.parquet",
    log:
        STORE / "robustness" / "{entry}" / "robustness.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("robustness")
    resources:
        mem_mb=memory(4000),
        runtime=1440,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer robustness {params.entry:q} --threads {threads} --log {log:q}"
