# Measure a backbone's accuracy on the source's test images, clean and attacked.
rule evaluation:
    input:
        WIRING.cards("evaluation"),
    output:
        card=STORE / "evaluation" / "{entry}" / "card.json",
        timing=STORE / "evaluation" / "{entry}" / "timing.json",
        metrics=STORE / "evaluation" / "{entry}" / "metrics.json",
    log:
        STORE / "evaluation" / "{entry}" / "evaluation.log",
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=240,
        gpu=1,
    params:
        code=WIRING.code("evaluation"),
    shell:
        "python -m robust_transfer evaluation {STORE}/evaluation/{wildcards.entry} --threads {threads} --log {log}"
