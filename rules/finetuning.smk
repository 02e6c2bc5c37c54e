# Fine-tune a whole network on a target: search runs and a refit of the best, or one run where there is one rate.
rule finetuning:
    input:
        backbone=WIRING.input("finetuning", "backbone"),
        dataset=WIRING.input("finetuning", "dataset"),
        runs=WIRING.runs("finetuning"),
        start=WIRING.others("finetuning", "features", "probe"),
    output:
        card=STORE / "finetuning" / "{entry}" / "card.json",
        timing=STORE / "finetuning" / "{entry}" / "timing.json",
        metrics=STORE / "finetuning" / "{entry}" / "metrics.json",
        predictions=STORE / "finetuning" / "{entry}" / "predictions.parquet",
        epochs=STORE / "finetuning" / "{entry}" / "epochs.csv",
    log:
        STORE / "finetuning" / "{entry}" / "finetuning.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("finetuning")
    resources:
        mem_mb=FEEDING.memory("finetuning", 4000),
        runtime=1440,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer finetuning {params.entry:q} --threads {threads} --log {log:q}"
