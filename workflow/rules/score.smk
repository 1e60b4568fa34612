rule score:
    input:
        inputs_of("score"),
    output:
        product=SCORES,
        sidecar=paths.sidecar(SCORES),
        record=paths.run_record(SCORES),
    log:
        LOGS / f"score/{RUN_NAME}.log",
    benchmark:
        BENCHMARKS / f"score/{RUN_NAME}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=SCORING_GPUS,
    params:
        root=root_of,
        spec=spec_of("score"),
    shell:
        "diffbench score --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"
