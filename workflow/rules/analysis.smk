rule analysis:
    input:
        inputs_of("analysis"),
    output:
        product=ANALYSIS,
        sidecar=paths.sidecar(ANALYSIS),
        record=paths.run_record(ANALYSIS),
    log:
        LOGS / f"analysis/{RUN_NAME}/{{analysis}}.log",
    benchmark:
        BENCHMARKS / f"analysis/{RUN_NAME}/{{analysis}}.tsv"
    conda:
        "../../environment.yml"
    threads: threads_of("analysis")
    resources:
        gpu=GPUS,
    params:
        root=root_of,
        spec=spec_of("analysis"),
    shell:
        "diffbench analysis --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"
