# Test transferred models on further test sets of their targets' classes.
rule test_sets:
    input:
        WIRING.inputs("test_sets"),
    output:
        card=STORE / "test_sets" / "{entry}" / "card.json",
        timing=STORE / "test_sets" / "{entry}" / "timing.json",
        metrics=STORE / "test_sets" / "{entry}" / "metrics.json",
        predictions=STORE / "test_sets" / "{entry}" / "test_sets.parquet",
    log:
        STORE / "test_sets" / "{entry}" / "test_sets.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("test_sets")
    resources:
        mem_mb=memory(4000),
        runtime=240,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer test_sets {params.entry:q} --threads {threads} --log {log:q}"
