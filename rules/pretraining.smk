# Train a backbone on the source, adversarially unless its eps is 0.
rule pretraining:
    input:
        source=WIRING.input("pretraining", "source"),
        others=WIRING.others("pretraining", "stylized", "start"),
    output:
        card=STORE / "pretraining" / "{entry}" / "card.json",
        timing=STORE / "pretraining" / "{entry}" / "timing.json",
        weights=STORE / "pretraining" / "{entry}" / "weights.safetensors",
        epochs=STORE / "pretraining" / "{entry}" / "epochs.csv",
    log:
        STORE / "pretraining" / "{entry}" / "pretraining.log",
    priority: 10
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("pretraining")
    resources:
        mem_mb=FEEDING.memory("pretraining", 4000),
        runtime=2880,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer pretraining {params.entry:q} --threads {threads} --processes {resources.gpu} --log {log:q}"
