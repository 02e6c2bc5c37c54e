# Import a backbone from published weights.
rule importing:
    output:
        card=STORE / "importing" / "{entry}" / "card.json",
        timing=STORE / "importing" / "{entry}" / "timing.json",
        weights=STORE / "importing" / "{entry}" / "weights.safetensors",
    log:
        STORE / "importing" / "{entry}" / "importing.log",
    priority: 10
    conda:
        "../envs/robust-transfer.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer importing {params.entry:q} --threads {threads} --log {log:q}"
