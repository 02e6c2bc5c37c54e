# Prepare a dataset: decode, check, limit and store its images.
# validation.arrow is no declared output: whether there is one shows when the origin is opened. The card lists it.
rule datasets:
    output:
        card=STORE / "datasets" / "{entry}" / "card.json",
        timing=STORE / "datasets" / "{entry}" / "timing.json",
        train=STORE / "datasets" / "{entry}" / "train.arrow",
        test=STORE / "datasets" / "{entry}" / "test.arrow",
    log:
        STORE / "datasets" / "{entry}" / "datasets.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=240,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer datasets {params.entry:q} --threads {threads} --log {log:q}"
