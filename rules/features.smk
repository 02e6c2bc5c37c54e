# Extract a dataset's features: activations before the head of a frozen backbone.
# validation.arrow is no declared output: whether there is one depends on the dataset. The card lists it.
rule features:
    input:
        backbone=WIRING.input("features", "backbone"),
        dataset=WIRING.input("features", "dataset"),
    output:
        card=STORE / "features" / "{entry}" / "card.json",
        timing=STORE / "features" / "{entry}" / "timing.json",
        train=STORE / "features" / "{entry}" / "train.arrow",
        test=STORE / "features" / "{entry}" / "test.arrow",
    log:
        STORE / "features" / "{entry}" / "features.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("features")
    resources:
        mem_mb=FEEDING.memory("features", 4000),
        runtime=240,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer features {params.entry:q} --threads {threads} --log {log:q}"
