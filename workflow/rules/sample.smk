rule sample:
    input:
        inputs_of("sample"),
    output:
        product=SAMPLES,
        sidecar=paths.sidecar(SAMPLES),
        record=paths.run_record(SAMPLES),
        picture=paths.grid(*RUN, "{solver}"),
    log:
        LOGS / f"sample/{RUN_NAME}/{{solver}}.log",
    benchmark:
        BENCHMARKS / f"sample/{RUN_NAME}/{{solver}}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=GPUS,
    params:
        root=root_of,
        spec=spec_of("sample"),
    shell:
        "diffbench sample --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"
