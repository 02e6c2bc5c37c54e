# Collect every measured number of the experiment in one table, what it cost in a second one, how its backbones were
# trained in a third, what is known of each in a fourth, and what looks wrong in a list.
rule results:
    input:
        metrics=WIRING.measurements,
        timings=WIRING.timings,
    output:
        results=RESULTS / "results.parquet",
        timings=RESULTS / "timings.parquet",
        training=RESULTS / "training.parquet",
        backbones=RESULTS / "backbones.csv",
        flags=report(
            RESULTS / "flags.csv",
            caption="../workflow/report/flags.rst",
            category="Sanity",
            labels={"table": "what looks wrong"},
        ),
    log:
        RESULTS / "logs" / "results.log",
    conda:
        "../envs/robust-transfer.yaml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        folder=subpath(output.results, parent=True),
    shell:
        """
        python -m robust_transfer results {params.folder:q}/experiment.json \
            --results {output.results:q} \
            --timings {output.timings:q} \
            --training {output.training:q} \
            --backbones {output.backbones:q} \
            --flags {output.flags:q} \
            --log {log:q}
        """
