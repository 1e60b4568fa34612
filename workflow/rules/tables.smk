# After all that has numbers; after a failure, `onerror:` in the Snakefile makes the tables of what there is.
rule tables:
    input:
        [
            product
            for stage in ("score", "likelihood", "restore", "analysis")
            for run in PLAN.of(stage)
            for product in run.products
        ],
    output:
        tables=TABLES,
        complete=touch(paths.tables_complete(PLAN.root)),
    log:
        LOGS / "tables.log",
    benchmark:
        BENCHMARKS / "tables.tsv"
    conda:
        "../../environment.yml"
    params:
        arguments=PLAN_ARGUMENTS,
        content=TABLE_PARAMS,
    shell:
        "diffbench table {params.arguments:q} > {log:q} 2>&1"
