# Measure whether a backbone decides by shape or by texture, where the two are of different classes.
rule cue_conflict:
    input:
        backbone=WIRING.input("cue_conflict", "backbone"),
        conflicts=WIRING.input("cue_conflict", "conflicts"),
        source=WIRING.others("cue_conflict", "source"),
        features=WIRING.runs("cue_conflict"),
    output:
        card=STORE / "cue_conflict" / "{entry}" / "card.json",
        timing=STORE / "cue_conflict" / "{entry}" / "timing.json",
        metrics=STORE / "cue_conflict" / "{entry}" / "metrics.json",
        decisions=STORE / "cue_conflict" / "{entry}" / "decisions.csv",
    log:
        STORE / "cue_conflict" / "{entry}" / "cue_conflict.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("cue_conflict")
    resources:
        mem_mb=memory(4000),
        runtime=60,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer cue_conflict {params.entry:q} --threads {threads} --log {log:q}"
