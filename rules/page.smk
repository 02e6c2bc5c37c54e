# Write the experiment's page: the answer, the claims, every figure and every number in one HTML file.
rule page:
    input:
        WIRING.figures(),
        WIRING.sheets,
        results=WIRING.table("results.parquet"),
        training=WIRING.table("training.parquet"),
        timings=WIRING.table("timings.parquet"),
        backbones=WIRING.table("backbones.csv"),
        flags=WIRING.table("flags.csv"),
        claims=WIRING.product("claims", "claims.json"),
    output:
        RESULTS / "index.html",
    log:
        RESULTS / "logs" / "page.log",
    conda:
        "../envs/robust-transfer.yaml"
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        folder=subpath(output[0], parent=True),
    shell:
        "python -m robust_transfer page {params.folder:q} --out {output:q} --log {log:q}"
