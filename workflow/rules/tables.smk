# After all that has numbers; after a failure, `onerror:` in the Snakefile makes the tables of what there is.
rule tables:
    input:
        [product for job in PLAN.jobs if job.spec.tabled for product in job.products],
    output:
        tables=tables_reported(),
        complete=touch(paths.tables_complete(PLAN.root)),
    log:
        LOGS / "tables.log",
    conda:
        "../../environment.yml"
    params:
        arguments=PLAN_ARGUMENTS,
        content=TABLE_PARAMS,
    shell:
        "diffbench table {params.arguments:q} > {log:q} 2>&1"
