# Prepare cue-conflict images, which show the shape of one class with the texture of another.
rule conflicts:
    output:
        card=STORE / "conflicts" / "{entry}" / "card.json",
        timing=STORE / "conflicts" / "{entry}" / "timing.json",
        test=STORE / "conflicts" / "{entry}" / "test.arrow",
    log:
        STORE / "conflicts" / "{entry}" / "conflicts.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer conflicts {params.entry:q} --threads {threads} --log {log:q}"
