rule restore:
    input:
        inputs_of("restore"),
    output:
        product=RESTORATION,
        sidecar=paths.sidecar(RESTORATION),
        record=paths.run_record(RESTORATION),
        images=RESTORED_IMAGES,
        images_sidecar=paths.sidecar(RESTORED_IMAGES),
        picture=paths.restored_picture(*RUN, "{task}", "{method}"),
    log:
        LOGS / f"restore/{RUN_NAME}/{{task}}/{{method}}.log",
    benchmark:
        BENCHMARKS / f"restore/{RUN_NAME}/{{task}}/{{method}}.tsv"
    conda:
        "../../environment.yml"
    threads: threads_of("restore")
    resources:
        gpu=GPUS,
    params:
        root=root_of,
        spec=spec_of("restore"),
    shell:
        "diffbench restore --root {params.root:q} --spec {params.spec:q} > {log:q} 2>&1"
