# Collect every measured number of the experiment in one table, and what it cost in a second one.
rule results:
    input:
        metrics=WIRING.measurements,
        timings=WIRING.timings,
    output:
        results=RESULTS / "results.parquet",
        timings=RESULTS / "timings.parquet",
    log:
        RESULTS / "logs" / "results.log",
    conda:
        "../envs/robust-transfer.yaml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        folder=subpath(output.results, parent=True),
        code=WIRING.code("results"),
        experiment=WIRING.experiment_digest,
    shell:
        """
        python -m robust_transfer results {params.folder}/experiment.json \
            --results {output.results} \
            --timings {output.timings} \
            --log {log}
        """
