# Show what a backbone responds to: four contact sheets, and the numbers beside them.
rule gallery:
    input:
        backbone=WIRING.input("gallery", "backbone"),
        source=WIRING.input("gallery", "source"),
    output:
        card=STORE / "gallery" / "{entry}" / "card.json",
        timing=STORE / "gallery" / "{entry}" / "timing.json",
        metrics=STORE / "gallery" / "{entry}" / "metrics.json",
        adversarial=report(
            STORE / "gallery" / "{entry}" / "adversarial.png",
            caption="../workflow/report/gallery_adversarial.rst",
            category="Gallery",
            labels={"network": "{entry}", "shows": "adversarial examples"},
        ),
        gradients=report(
            STORE / "gallery" / "{entry}" / "gradients.png",
            caption="../workflow/report/gallery_gradients.rst",
            category="Gallery",
            labels={"network": "{entry}", "shows": "gradients of the loss"},
        ),
        inversions=report(
            STORE / "gallery" / "{entry}" / "inversions.png",
            caption="../workflow/report/gallery_inversions.rst",
            category="Gallery",
            labels={"network": "{entry}", "shows": "images rebuilt"},
        ),
        visualisations=report(
            STORE / "gallery" / "{entry}" / "visualisations.png",
            caption="../workflow/report/gallery_visualisations.rst",
            category="Gallery",
            labels={"network": "{entry}", "shows": "class visualisations"},
        ),
    log:
        STORE / "gallery" / "{entry}" / "gallery.log",
    conda:
        "../envs/robust-transfer.yaml"
    threads: FEEDING.threads("gallery")
    resources:
        mem_mb=memory(4000),
        runtime=240,
        gpu=1,
    params:
        entry=subpath(output.card, parent=True),
    shell:
        "python -m robust_transfer gallery {params.entry:q} --threads {threads} --log {log:q}"
