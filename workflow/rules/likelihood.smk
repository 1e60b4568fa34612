rule likelihood:
    input:
        inputs_of("likelihood"),
    output:
        product=LIKELIHOOD,
        sidecar=paths.sidecar(LIKELIHOOD),
        record=paths.run_record(LIKELIHOOD),
    log:
        LOGS / f"likelihood/{RUN_NAME}/{{kind}}.log",
    benchmark:
        BENCHMARKS / f"likelihood/{RUN_NAME}/{{kind}}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        root=root_of,
        spec=spec_of("likelihood"),
    shell:
        "diffbench likelihood --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"
