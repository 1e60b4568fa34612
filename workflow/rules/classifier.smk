rule classifier:
    input:
        inputs_of("classifier"),
    output:
        product=CLASSIFIER,
        sidecar=paths.sidecar(CLASSIFIER),
        record=paths.run_record(CLASSIFIER),
    log:
        LOGS / f"classifier/{RUN_NAME}.log",
    benchmark:
        BENCHMARKS / f"classifier/{RUN_NAME}.tsv"
    conda:
        "../../environment.yml"
    threads: threads_of("classifier")
    resources:
        gpu=TRAINING_GPUS,
    params:
        root=root_of,
        spec=spec_of("classifier"),
    shell:
        "diffbench classifier --root {params.root:q} --spec {params.spec:q}"
        " --processes {resources.gpu} > {log:q} 2>&1"
