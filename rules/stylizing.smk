# Stylize a dataset: its images with other textures, and a contact sheet of some.
# validation.arrow is no declared output: whether there is one depends on the dataset. The card lists it.
rule stylizing:
    input:
        dataset=WIRING.input("stylizing", "dataset"),
        styles=WIRING.others("stylizing", "styles"),
    output:
        card=STORE / "stylizing" / "{entry}" / "card.json",
        timing=STORE / "stylizing" / "{entry}" / "timing.json",
        train=STORE / "stylizing" / "{entry}" / "train.arrow",
        test=STORE / "stylizing" / "{entry}" / "test.arrow",
        samples=report(
            STORE / "stylizing" / "{entry}" / "samples.png",
            caption="../workflow/report/stylizing.rst",
            category="Stylized images",
            labels={"dataset": "{entry}"},
        ),
    log:
        STORE / "stylizing" / "{entry}" / "stylizing.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("stylizing")
    resources:
        mem_mb=memory(4000),
        runtime=1440,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer stylizing {params.entry:q} --threads {threads} --log {log:q}"
