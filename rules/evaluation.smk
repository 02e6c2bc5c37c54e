# Measure a backbone's accuracy on the source's test images, clean and attacked.
rule evaluation:
    input:
        backbone=WIRING.input("evaluation", "backbone"),
        source=WIRING.input("evaluation", "source"),
    output:
        card=STORE / "evaluation" / "{entry}" / "card.json",
        timing=STORE / "evaluation" / "{entry}" / "timing.json",
        metrics=STORE / "evaluation" / "{entry}" / "metrics.json",
    log:
        STORE / "evaluation" / "{entry}" / "evaluation.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("evaluation")
    resources:
        mem_mb=memory(4000),
        runtime=240,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer evaluation {params.entry:q} --threads {threads} --log {log:q}"
