# Derive a dataset with less detail from another: its images downscaled.
# validation.arrow is no declared output: whether there is one depends on the dataset. The card lists it.
rule granularity:
    input:
        dataset=WIRING.input("granularity", "dataset"),
    output:
        card=STORE / "granularity" / "{entry}" / "card.json",
        timing=STORE / "granularity" / "{entry}" / "timing.json",
        train=STORE / "granularity" / "{entry}" / "train.arrow",
        test=STORE / "granularity" / "{entry}" / "test.arrow",
    log:
        STORE / "granularity" / "{entry}" / "granularity.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=240,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer granularity {params.entry:q} --threads {threads} --log {log:q}"
